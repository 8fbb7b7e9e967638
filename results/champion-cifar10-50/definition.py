# champion, for images 32x32x3 (height x width x channels): 93,637 parameters, 91,397 of them trainable.

from keras import Input, Model, ops
from keras.layers import (
    Activation, Add, AveragePooling2D, BatchNormalization, Dense, Dropout, GlobalAveragePooling2D, SeparableConv2D,
    ZeroPadding2D,
)
from keras.losses import SparseCategoricalCrossentropy

image = Input(shape=(32, 32, 3))
x = SeparableConv2D(filters=32, kernel_size=(3, 3), padding='same', use_bias=False)(image)  # Receptive field 3x3, output size 32x32x32
x = BatchNormalization(momentum=0.9, epsilon=1e-05)(x)  # Receptive field 3x3, output size 32x32x32
skip1 = Activation('relu')(x)  # Receptive field 3x3, output size 32x32x32
x = SeparableConv2D(filters=32, kernel_size=(3, 3), padding='same', use_bias=False)(skip1)  # Receptive field 5x5, output size 32x32x32
x = BatchNormalization(momentum=0.9, epsilon=1e-05)(x)  # Receptive field 5x5, output size 32x32x32
x = Activation('relu')(x)  # Receptive field 5x5, output size 32x32x32
x = SeparableConv2D(filters=32, kernel_size=(3, 3), padding='same', use_bias=False)(x)  # Receptive field 7x7, output size 32x32x32
x = BatchNormalization(momentum=0.9, epsilon=1e-05)(x)  # Receptive field 7x7, output size 32x32x32
x = Add()([x, skip1])  # Receptive field 7x7, output size 32x32x32
skip2 = Activation('relu')(x)  # Receptive field 7x7, output size 32x32x32
x = SeparableConv2D(filters=32, kernel_size=(3, 3), padding='same', use_bias=False)(skip2)  # Receptive field 9x9, output size 32x32x32
x = BatchNormalization(momentum=0.9, epsilon=1e-05)(x)  # Receptive field 9x9, output size 32x32x32
x = Activation('relu')(x)  # Receptive field 9x9, output size 32x32x32
x = SeparableConv2D(filters=32, kernel_size=(3, 3), padding='same', use_bias=False)(x)  # Receptive field 11x11, output size 32x32x32
x = BatchNormalization(momentum=0.9, epsilon=1e-05)(x)  # Receptive field 11x11, output size 32x32x32
x = Add()([x, skip2])  # Receptive field 11x11, output size 32x32x32
skip3 = Activation('relu')(x)  # Receptive field 11x11, output size 32x32x32
x = ZeroPadding2D(padding=(1, 1))(skip3)  # Receptive field 11x11, output size 34x34x32
x = SeparableConv2D(filters=64, kernel_size=(3, 3), strides=(2, 2), use_bias=False)(x)  # Receptive field 13x13, output size 16x16x64
x = BatchNormalization(momentum=0.9, epsilon=1e-05)(x)  # Receptive field 13x13, output size 16x16x64
x = Activation('relu')(x)  # Receptive field 13x13, output size 16x16x64
x = SeparableConv2D(filters=64, kernel_size=(3, 3), padding='same', use_bias=False)(x)  # Receptive field 17x17, output size 16x16x64
x = BatchNormalization(momentum=0.9, epsilon=1e-05)(x)  # Receptive field 17x17, output size 16x16x64
y = AveragePooling2D(pool_size=(2, 2))(skip3)  # Receptive field 12x12, output size 16x16x32
y = ops.pad(y, pad_width=((0, 0), (0, 0), (0, 0), (0, 32)))  # Receptive field 12x12, output size 16x16x64
x = Add()([x, y])  # Receptive field 17x17, output size 16x16x64
skip4 = Activation('relu')(x)  # Receptive field 17x17, output size 16x16x64
x = SeparableConv2D(filters=64, kernel_size=(3, 3), padding='same', use_bias=False)(skip4)  # Receptive field 21x21, output size 16x16x64
x = BatchNormalization(momentum=0.9, epsilon=1e-05)(x)  # Receptive field 21x21, output size 16x16x64
x = Activation('relu')(x)  # Receptive field 21x21, output size 16x16x64
x = SeparableConv2D(filters=64, kernel_size=(3, 3), padding='same', use_bias=False)(x)  # Receptive field 25x25, output size 16x16x64
x = BatchNormalization(momentum=0.9, epsilon=1e-05)(x)  # Receptive field 25x25, output size 16x16x64
x = Add()([x, skip4])  # Receptive field 25x25, output size 16x16x64
skip5 = Activation('relu')(x)  # Receptive field 25x25, output size 16x16x64
x = SeparableConv2D(filters=64, kernel_size=(3, 3), padding='same', use_bias=False)(skip5)  # Receptive field 29x29, output size 16x16x64
x = BatchNormalization(momentum=0.9, epsilon=1e-05)(x)  # Receptive field 29x29, output size 16x16x64
x = Activation('relu')(x)  # Receptive field 29x29, output size 16x16x64
x = SeparableConv2D(filters=64, kernel_size=(3, 3), padding='same', use_bias=False)(x)  # Receptive field 33x33, output size 16x16x64
x = BatchNormalization(momentum=0.9, epsilon=1e-05)(x)  # Receptive field 33x33, output size 16x16x64
x = Add()([x, skip5])  # Receptive field 33x33, output size 16x16x64
skip6 = Activation('relu')(x)  # Receptive field 33x33, output size 16x16x64
x = ZeroPadding2D(padding=(1, 1))(skip6)  # Receptive field 33x33, output size 18x18x64
x = SeparableConv2D(filters=96, kernel_size=(3, 3), strides=(2, 2), use_bias=False)(x)  # Receptive field 37x37, output size 8x8x96
x = BatchNormalization(momentum=0.9, epsilon=1e-05)(x)  # Receptive field 37x37, output size 8x8x96
x = Activation('relu')(x)  # Receptive field 37x37, output size 8x8x96
x = SeparableConv2D(filters=96, kernel_size=(3, 3), padding='same', use_bias=False)(x)  # Receptive field 45x45, output size 8x8x96
x = BatchNormalization(momentum=0.9, epsilon=1e-05)(x)  # Receptive field 45x45, output size 8x8x96
y = AveragePooling2D(pool_size=(2, 2))(skip6)  # Receptive field 35x35, output size 8x8x64
y = ops.pad(y, pad_width=((0, 0), (0, 0), (0, 0), (0, 32)))  # Receptive field 35x35, output size 8x8x96
x = Add()([x, y])  # Receptive field 45x45, output size 8x8x96
skip7 = Activation('relu')(x)  # Receptive field 45x45, output size 8x8x96
x = SeparableConv2D(filters=96, kernel_size=(3, 3), padding='same', use_bias=False)(skip7)  # Receptive field 53x53, output size 8x8x96
x = BatchNormalization(momentum=0.9, epsilon=1e-05)(x)  # Receptive field 53x53, output size 8x8x96
x = Activation('relu')(x)  # Receptive field 53x53, output size 8x8x96
x = SeparableConv2D(filters=96, kernel_size=(3, 3), padding='same', use_bias=False)(x)  # Receptive field 61x61, output size 8x8x96
x = BatchNormalization(momentum=0.9, epsilon=1e-05)(x)  # Receptive field 61x61, output size 8x8x96
x = Add()([x, skip7])  # Receptive field 61x61, output size 8x8x96
skip8 = Activation('relu')(x)  # Receptive field 61x61, output size 8x8x96
x = SeparableConv2D(filters=96, kernel_size=(3, 3), padding='same', use_bias=False)(skip8)  # Receptive field 69x69, output size 8x8x96
x = BatchNormalization(momentum=0.9, epsilon=1e-05)(x)  # Receptive field 69x69, output size 8x8x96
x = Activation('relu')(x)  # Receptive field 69x69, output size 8x8x96
x = SeparableConv2D(filters=96, kernel_size=(3, 3), padding='same', use_bias=False)(x)  # Receptive field 77x77, output size 8x8x96
x = BatchNormalization(momentum=0.9, epsilon=1e-05)(x)  # Receptive field 77x77, output size 8x8x96
x = Add()([x, skip8])  # Receptive field 77x77, output size 8x8x96
x = Activation('relu')(x)  # Receptive field 77x77, output size 8x8x96
x = GlobalAveragePooling2D()(x)  # Receptive field 105x105, output size 96
x = Dropout(0.05)(x)  # Receptive field 105x105, output size 96
x = Dense(10)(x)  # Receptive field 105x105, output size 10
model = Model(image, x)

# The model gives logits, of which the loss takes the softmax; labels are the classes' numbers.
model.compile(optimizer='adam', loss=SparseCategoricalCrossentropy(from_logits=True), metrics=['accuracy'])
