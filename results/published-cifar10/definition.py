# published, for images 32x32x3 (height x width x channels): 96,009 parameters, 93,865 of them trainable.

from keras import Input, Sequential
from keras.layers import (
    Activation, BatchNormalization, Dense, Dropout, GlobalAveragePooling2D, MaxPool2D, SeparableConv2D,
)
from keras.losses import SparseCategoricalCrossentropy

model = Sequential()
model.add(Input(shape=(32, 32, 3)))
model.add(SeparableConv2D(filters=48, kernel_size=(3, 3), padding='same', use_bias=False))  # Receptive field 3x3, output size 32x32x48
model.add(Activation('relu'))  # Receptive field 3x3, output size 32x32x48
model.add(BatchNormalization())  # Receptive field 3x3, output size 32x32x48
model.add(SeparableConv2D(filters=96, kernel_size=(3, 3), padding='same', use_bias=False))  # Receptive field 5x5, output size 32x32x96
model.add(Activation('relu'))  # Receptive field 5x5, output size 32x32x96
model.add(BatchNormalization())  # Receptive field 5x5, output size 32x32x96
model.add(SeparableConv2D(filters=192, kernel_size=(3, 3), padding='same', use_bias=False))  # Receptive field 7x7, output size 32x32x192
model.add(Activation('relu'))  # Receptive field 7x7, output size 32x32x192
model.add(BatchNormalization())  # Receptive field 7x7, output size 32x32x192
model.add(SeparableConv2D(filters=32, kernel_size=(1, 1), padding='same', use_bias=False))  # Receptive field 7x7, output size 32x32x32
model.add(Activation('relu'))  # Receptive field 7x7, output size 32x32x32
model.add(BatchNormalization())  # Receptive field 7x7, output size 32x32x32
model.add(MaxPool2D(pool_size=(2, 2)))  # Receptive field 8x8, output size 16x16x32
model.add(Dropout(0.1))  # Receptive field 8x8, output size 16x16x32
model.add(SeparableConv2D(filters=48, kernel_size=(3, 3), padding='same', use_bias=False))  # Receptive field 12x12, output size 16x16x48
model.add(Activation('relu'))  # Receptive field 12x12, output size 16x16x48
model.add(BatchNormalization())  # Receptive field 12x12, output size 16x16x48
model.add(SeparableConv2D(filters=96, kernel_size=(3, 3), padding='same', use_bias=False))  # Receptive field 16x16, output size 16x16x96
model.add(Activation('relu'))  # Receptive field 16x16, output size 16x16x96
model.add(BatchNormalization())  # Receptive field 16x16, output size 16x16x96
model.add(SeparableConv2D(filters=192, kernel_size=(3, 3), padding='same', use_bias=False))  # Receptive field 20x20, output size 16x16x192
model.add(Activation('relu'))  # Receptive field 20x20, output size 16x16x192
model.add(BatchNormalization())  # Receptive field 20x20, output size 16x16x192
model.add(SeparableConv2D(filters=32, kernel_size=(1, 1), padding='same', use_bias=False))  # Receptive field 20x20, output size 16x16x32
model.add(Activation('relu'))  # Receptive field 20x20, output size 16x16x32
model.add(BatchNormalization())  # Receptive field 20x20, output size 16x16x32
model.add(MaxPool2D(pool_size=(2, 2)))  # Receptive field 22x22, output size 8x8x32
model.add(Dropout(0.1))  # Receptive field 22x22, output size 8x8x32
model.add(SeparableConv2D(filters=48, kernel_size=(3, 3), padding='same', use_bias=False))  # Receptive field 30x30, output size 8x8x48
model.add(Activation('relu'))  # Receptive field 30x30, output size 8x8x48
model.add(BatchNormalization())  # Receptive field 30x30, output size 8x8x48
model.add(SeparableConv2D(filters=96, kernel_size=(3, 3), padding='same', use_bias=False))  # Receptive field 38x38, output size 8x8x96
model.add(Activation('relu'))  # Receptive field 38x38, output size 8x8x96
model.add(BatchNormalization())  # Receptive field 38x38, output size 8x8x96
model.add(SeparableConv2D(filters=192, kernel_size=(3, 3), padding='same', use_bias=False))  # Receptive field 46x46, output size 8x8x192
model.add(Activation('relu'))  # Receptive field 46x46, output size 8x8x192
model.add(BatchNormalization())  # Receptive field 46x46, output size 8x8x192
model.add(MaxPool2D(pool_size=(2, 2)))  # Receptive field 50x50, output size 4x4x192
model.add(Dropout(0.1))  # Receptive field 50x50, output size 4x4x192
model.add(SeparableConv2D(filters=10, kernel_size=(1, 1), padding='same', use_bias=False))  # Receptive field 50x50, output size 4x4x10
model.add(GlobalAveragePooling2D())  # Receptive field 74x74, output size 10
model.add(Dense(10))  # Receptive field 74x74, output size 10

# The model gives logits, of which the loss takes the softmax; labels are the classes' numbers.
model.compile(optimizer='adam', loss=SparseCategoricalCrossentropy(from_logits=True), metrics=['accuracy'])
