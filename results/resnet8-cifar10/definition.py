# resnet8, for images 32x32x3 (height x width x channels): 78,666 parameters, 78,186 of them trainable.

from keras import Input, Model
from keras.layers import Activation, Add, BatchNormalization, Conv2D, Dense, GlobalAveragePooling2D
from keras.losses import SparseCategoricalCrossentropy

image = Input(shape=(32, 32, 3))
x = Conv2D(filters=16, kernel_size=(3, 3), padding='same')(image)  # Receptive field 3x3, output size 32x32x16
x = BatchNormalization()(x)  # Receptive field 3x3, output size 32x32x16
skip1 = Activation('relu')(x)  # Receptive field 3x3, output size 32x32x16
x = Conv2D(filters=16, kernel_size=(3, 3), padding='same')(skip1)  # Receptive field 5x5, output size 32x32x16
x = BatchNormalization()(x)  # Receptive field 5x5, output size 32x32x16
x = Activation('relu')(x)  # Receptive field 5x5, output size 32x32x16
x = Conv2D(filters=16, kernel_size=(3, 3), padding='same')(x)  # Receptive field 7x7, output size 32x32x16
x = BatchNormalization()(x)  # Receptive field 7x7, output size 32x32x16
x = Add()([x, skip1])  # Receptive field 7x7, output size 32x32x16
skip2 = Activation('relu')(x)  # Receptive field 7x7, output size 32x32x16
x = Conv2D(filters=32, kernel_size=(3, 3), strides=(2, 2), padding='same')(skip2)  # Receptive field 9x9, output size 16x16x32
x = BatchNormalization()(x)  # Receptive field 9x9, output size 16x16x32
x = Activation('relu')(x)  # Receptive field 9x9, output size 16x16x32
x = Conv2D(filters=32, kernel_size=(3, 3), padding='same')(x)  # Receptive field 13x13, output size 16x16x32
x = BatchNormalization()(x)  # Receptive field 13x13, output size 16x16x32
y = Conv2D(filters=32, kernel_size=(1, 1), strides=(2, 2), padding='same')(skip2)  # Receptive field 7x7, output size 16x16x32
x = Add()([x, y])  # Receptive field 13x13, output size 16x16x32
skip3 = Activation('relu')(x)  # Receptive field 13x13, output size 16x16x32
x = Conv2D(filters=64, kernel_size=(3, 3), strides=(2, 2), padding='same')(skip3)  # Receptive field 17x17, output size 8x8x64
x = BatchNormalization()(x)  # Receptive field 17x17, output size 8x8x64
x = Activation('relu')(x)  # Receptive field 17x17, output size 8x8x64
x = Conv2D(filters=64, kernel_size=(3, 3), padding='same')(x)  # Receptive field 25x25, output size 8x8x64
x = BatchNormalization()(x)  # Receptive field 25x25, output size 8x8x64
y = Conv2D(filters=64, kernel_size=(1, 1), strides=(2, 2), padding='same')(skip3)  # Receptive field 13x13, output size 8x8x64
x = Add()([x, y])  # Receptive field 25x25, output size 8x8x64
x = Activation('relu')(x)  # Receptive field 25x25, output size 8x8x64
x = GlobalAveragePooling2D()(x)  # Receptive field 53x53, output size 64
x = Dense(10)(x)  # Receptive field 53x53, output size 10
model = Model(image, x)

# The model gives logits, of which the loss takes the softmax; labels are the classes' numbers.
model.compile(optimizer='adam', loss=SparseCategoricalCrossentropy(from_logits=True), metrics=['accuracy'])
