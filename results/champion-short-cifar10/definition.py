# champion, for images 32x32x3 (height x width x channels): 99,426 parameters, 97,474 of them trainable.

from keras import Input, Model, ops
from keras.layers import (
    Activation, Add, AveragePooling2D, BatchNormalization, Dense, Dropout, GlobalAveragePooling2D, SeparableConv2D,
    ZeroPadding2D,
)
from keras.losses import SparseCategoricalCrossentropy

image = Input(shape=(32, 32, 3))
# Receptive field 3x3, output size 32x32x48
x = SeparableConv2D(filters=48, kernel_size=(3, 3), padding='same', depth_multiplier=8, use_bias=False)(image)
x = BatchNormalization(momentum=0.9, epsilon=1e-05)(x)  # Receptive field 3x3, output size 32x32x48
skip1 = Activation('hard_silu')(x)  # Receptive field 3x3, output size 32x32x48
x = SeparableConv2D(filters=48, kernel_size=(3, 3), padding='same', use_bias=False)(skip1)  # Receptive field 5x5, output size 32x32x48
x = BatchNormalization(momentum=0.9, epsilon=1e-05)(x)  # Receptive field 5x5, output size 32x32x48
x = Activation('hard_silu')(x)  # Receptive field 5x5, output size 32x32x48
x = SeparableConv2D(filters=48, kernel_size=(3, 3), padding='same', use_bias=False)(x)  # Receptive field 7x7, output size 32x32x48
x = BatchNormalization(momentum=0.9, epsilon=1e-05)(x)  # Receptive field 7x7, output size 32x32x48
x = Add()([x, skip1])  # Receptive field 7x7, output size 32x32x48
skip2 = Activation('hard_silu')(x)  # Receptive field 7x7, output size 32x32x48
x = ZeroPadding2D(padding=(1, 1))(skip2)  # Receptive field 7x7, output size 34x34x48
x = SeparableConv2D(filters=96, kernel_size=(3, 3), strides=(2, 2), use_bias=False)(x)  # Receptive field 9x9, output size 16x16x96
x = BatchNormalization(momentum=0.9, epsilon=1e-05)(x)  # Receptive field 9x9, output size 16x16x96
x = Activation('hard_silu')(x)  # Receptive field 9x9, output size 16x16x96
x = SeparableConv2D(filters=96, kernel_size=(3, 3), padding='same', use_bias=False)(x)  # Receptive field 13x13, output size 16x16x96
x = BatchNormalization(momentum=0.9, epsilon=1e-05)(x)  # Receptive field 13x13, output size 16x16x96
y = AveragePooling2D(pool_size=(2, 2))(skip2)  # Receptive field 8x8, output size 16x16x48
y = ops.pad(y, pad_width=((0, 0), (0, 0), (0, 0), (0, 48)))  # Receptive field 8x8, output size 16x16x96
x = Add()([x, y])  # Receptive field 13x13, output size 16x16x96
skip3 = Activation('hard_silu')(x)  # Receptive field 13x13, output size 16x16x96
x = SeparableConv2D(filters=96, kernel_size=(3, 3), padding='same', use_bias=False)(skip3)  # Receptive field 17x17, output size 16x16x96
x = BatchNormalization(momentum=0.9, epsilon=1e-05)(x)  # Receptive field 17x17, output size 16x16x96
x = Activation('hard_silu')(x)  # Receptive field 17x17, output size 16x16x96
x = SeparableConv2D(filters=96, kernel_size=(3, 3), padding='same', use_bias=False)(x)  # Receptive field 21x21, output size 16x16x96
x = BatchNormalization(momentum=0.9, epsilon=1e-05)(x)  # Receptive field 21x21, output size 16x16x96
x = Add()([x, skip3])  # Receptive field 21x21, output size 16x16x96
skip4 = Activation('hard_silu')(x)  # Receptive field 21x21, output size 16x16x96
x = ZeroPadding2D(padding=(1, 1))(skip4)  # Receptive field 21x21, output size 18x18x96
x = SeparableConv2D(filters=112, kernel_size=(3, 3), strides=(2, 2), use_bias=False)(x)  # Receptive field 25x25, output size 8x8x112
x = BatchNormalization(momentum=0.9, epsilon=1e-05)(x)  # Receptive field 25x25, output size 8x8x112
x = Activation('hard_silu')(x)  # Receptive field 25x25, output size 8x8x112
x = SeparableConv2D(filters=112, kernel_size=(3, 3), padding='same', use_bias=False)(x)  # Receptive field 33x33, output size 8x8x112
x = BatchNormalization(momentum=0.9, epsilon=1e-05)(x)  # Receptive field 33x33, output size 8x8x112
y = AveragePooling2D(pool_size=(2, 2))(skip4)  # Receptive field 23x23, output size 8x8x96
y = ops.pad(y, pad_width=((0, 0), (0, 0), (0, 0), (0, 16)))  # Receptive field 23x23, output size 8x8x112
x = Add()([x, y])  # Receptive field 33x33, output size 8x8x112
skip5 = Activation('hard_silu')(x)  # Receptive field 33x33, output size 8x8x112
x = SeparableConv2D(filters=112, kernel_size=(3, 3), padding='same', use_bias=False)(skip5)  # Receptive field 41x41, output size 8x8x112
x = BatchNormalization(momentum=0.9, epsilon=1e-05)(x)  # Receptive field 41x41, output size 8x8x112
x = Activation('hard_silu')(x)  # Receptive field 41x41, output size 8x8x112
x = SeparableConv2D(filters=112, kernel_size=(3, 3), padding='same', use_bias=False)(x)  # Receptive field 49x49, output size 8x8x112
x = BatchNormalization(momentum=0.9, epsilon=1e-05)(x)  # Receptive field 49x49, output size 8x8x112
x = Add()([x, skip5])  # Receptive field 49x49, output size 8x8x112
x = Activation('hard_silu')(x)  # Receptive field 49x49, output size 8x8x112
x = GlobalAveragePooling2D()(x)  # Receptive field 77x77, output size 112
x = Dropout(0.05)(x)  # Receptive field 77x77, output size 112
x = Dense(10)(x)  # Receptive field 77x77, output size 10
model = Model(image, x)

# The model gives logits, of which the loss takes the softmax; labels are the classes' numbers.
model.compile(optimizer='adam', loss=SparseCategoricalCrossentropy(from_logits=True), metrics=['accuracy'])
