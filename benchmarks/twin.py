"""The article's U-Net in PyTorch: the same DenseNet121, the same decoder, as many parameters. Channels last."""

from __future__ import annotations

import torch
from torch import nn

BLOCKS, GROWTH = (6, 12, 24, 16), 32


class _Dense(nn.Module):
    """Normalise, narrow to 128 channels, normalise, convolve to 32 and append (Huang et al. 2017)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm2d(channels), nn.ReLU(inplace=True), nn.Conv2d(channels, 4 * GROWTH, 1, bias=False),
            nn.BatchNorm2d(4 * GROWTH), nn.ReLU(inplace=True), nn.Conv2d(4 * GROWTH, GROWTH, 3, padding=1, bias=False),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, self.layers(x)], 1)


class Encoder(nn.Module):
    """DenseNet121 without its top: photos (batch, 3, height, width) to maps at strides 2, 4, 8, 16, 32."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)
        )
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        channels, self.blocks, self.norms, self.narrow = 64, nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for place, count in enumerate(BLOCKS):
            self.blocks.append(nn.Sequential(*(_Dense(channels + GROWTH * number) for number in range(count))))
            channels += GROWTH * count
            self.norms.append(nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True)))
            if place < len(BLOCKS) - 1:
                self.narrow.append(nn.Sequential(nn.Conv2d(channels, channels // 2, 1, bias=False), nn.AvgPool2d(2)))
                channels //= 2

    def forward(self, photos: torch.Tensor) -> list[torch.Tensor]:
        maps = [self.stem(photos)]
        x = self.pool(maps[0])
        for place, (block, norm) in enumerate(zip(self.blocks, self.norms, strict=True)):
            maps.append(norm(block(x)))
            if place < len(self.narrow):
                x = self.narrow[place](maps[-1])
        return maps


class UNet(nn.Module):
    """Photos (batch, 3, height, width) to logits (batch, classes, height, width)."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.encoder, self.up = Encoder(), nn.ModuleList()
        channels = 1024
        for filters, skip in zip((512, 256, 128, 64), (1024, 512, 256, 64), strict=True):
            self.up.append(
                nn.Sequential(
                    nn.ConvTranspose2d(channels, filters, 3, stride=2, padding=1, output_padding=1, bias=False),
                    nn.BatchNorm2d(filters),
                    nn.ReLU(inplace=True),
                )
            )
            channels = filters + skip
        self.head = nn.ConvTranspose2d(channels, classes, 3, stride=2, padding=1, output_padding=1)

    def forward(self, photos: torch.Tensor) -> torch.Tensor:
        *skips, x = self.encoder(photos)
        for up, skip in zip(self.up, reversed(skips), strict=True):
            x = torch.cat([up(x), skip], 1)
        return self.head(x)
