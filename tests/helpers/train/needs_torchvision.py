"""A user's module of transforms, which needs torchvision."""

from torchvision import transforms

train = transforms.Compose([transforms.RandomResizedCrop(8), transforms.ToTensor()])
