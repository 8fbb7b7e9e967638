# base, for images 32x32x3 (height x width x channels): 1,172,410 parameters, 1,172,410 of them trainable.

from keras import Input, Sequential
from keras.layers import Activation, Conv2D, Dense, Dropout, Flatten, MaxPool2D
from keras.losses import SparseCategoricalCrossentropy

model = Sequential()
model.add(Input(shape=(32, 32, 3)))
model.add(Conv2D(filters=48, kernel_size=(3, 3), padding='same'))  # Receptive field 3x3, output size 32x32x48
model.add(Activation('relu'))  # Receptive field 3x3, output size 32x32x48
model.add(Conv2D(filters=48, kernel_size=(3, 3)))  # Receptive field 5x5, output size 30x30x48
model.add(Activation('relu'))  # Receptive field 5x5, output size 30x30x48
model.add(MaxPool2D(pool_size=(2, 2)))  # Receptive field 6x6, output size 15x15x48
model.add(Dropout(0.25))  # Receptive field 6x6, output size 15x15x48
model.add(Conv2D(filters=96, kernel_size=(3, 3), padding='same'))  # Receptive field 10x10, output size 15x15x96
model.add(Activation('relu'))  # Receptive field 10x10, output size 15x15x96
model.add(Conv2D(filters=96, kernel_size=(3, 3)))  # Receptive field 14x14, output size 13x13x96
model.add(Activation('relu'))  # Receptive field 14x14, output size 13x13x96
model.add(MaxPool2D(pool_size=(2, 2)))  # Receptive field 16x16, output size 6x6x96
model.add(Dropout(0.25))  # Receptive field 16x16, output size 6x6x96
model.add(Conv2D(filters=192, kernel_size=(3, 3), padding='same'))  # Receptive field 24x24, output size 6x6x192
model.add(Activation('relu'))  # Receptive field 24x24, output size 6x6x192
model.add(Conv2D(filters=192, kernel_size=(3, 3)))  # Receptive field 32x32, output size 4x4x192
model.add(Activation('relu'))  # Receptive field 32x32, output size 4x4x192
model.add(MaxPool2D(pool_size=(2, 2)))  # Receptive field 36x36, output size 2x2x192
model.add(Dropout(0.25))  # Receptive field 36x36, output size 2x2x192
model.add(Flatten())  # Receptive field 36x36, output size 768
model.add(Dense(512))  # Receptive field 44x44, output size 512
model.add(Activation('relu'))  # Receptive field 44x44, output size 512
model.add(Dropout(0.5))  # Receptive field 44x44, output size 512
model.add(Dense(256))  # Receptive field 44x44, output size 256
model.add(Activation('relu'))  # Receptive field 44x44, output size 256
model.add(Dropout(0.5))  # Receptive field 44x44, output size 256
model.add(Dense(10))  # Receptive field 44x44, output size 10

# The model gives logits, of which the loss takes the softmax; labels are the classes' numbers.
model.compile(optimizer='adam', loss=SparseCategoricalCrossentropy(from_logits=True), metrics=['accuracy'])
