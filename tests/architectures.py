"""Small copies of the architectures people train: residual and transformer networks, branches, U-shapes."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Built = tuple[nn.Module, tuple[Tensor, ...]]
ARCHITECTURES: dict[str, Callable[[], Built]] = {}


def architecture(build: Callable[[], Built]) -> Callable[[], Built]:
    """Enter a builder of (model, inputs) into the table."""
    ARCHITECTURES[build.__name__] = build
    return build


class Residual(nn.Module):
    """A residual block of two convolutions, as in ResNet-18."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += self.shortcut(x)
        return self.relu(y)


class ResNet(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.layer1 = nn.Sequential(Residual(width, width, 1), Residual(width, width, 1))
        self.layer2 = nn.Sequential(Residual(width, 2 * width, 2), Residual(2 * width, 2 * width, 1))
        self.fc = nn.Linear(2 * width, 5)

    def forward(self, x):
        x = self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x)))))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


@architecture
def resnet():
    return ResNet(), (torch.randn(3, 3, 8, 8),)


class PreActivation(nn.Module):
    """ResNet v2: norm and φ come before each convolution, and a norm after the last join."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(5))
        self.convs = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(4))
        self.fc = nn.Linear(4, 5)

    def forward(self, x):
        x = self.stem(x)
        for k in (0, 2):
            y = self.convs[k](F.relu(self.norms[k](x)))
            x = x + self.convs[k + 1](F.relu(self.norms[k + 1](y)))
        return self.fc(F.relu(self.norms[4](x)).mean((2, 3)))


@architecture
def preactivation():
    return PreActivation(), (torch.randn(3, 3, 6, 6),)


class Bottleneck(nn.Module):
    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(width, 4, 1), nn.GroupNorm(2, 4), nn.SiLU(),
            nn.Conv2d(4, 4, 3, padding=1, groups=groups), nn.GroupNorm(2, 4), nn.SiLU(), nn.Conv2d(4, width, 1),
        )  # fmt: skip

    def forward(self, x):
        return F.silu(x + self.main(x))


@architecture
def resnext():
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5))
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), Bottleneck(6, 2), Bottleneck(6, 4), head), (
        torch.randn(3, 3, 6, 6),
    )


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.c_attn, self.c_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        B, T, C = x.size()
        parts = self.c_attn(x).split(C, dim=2)
        q, k, v = (p.view(B, T, self.heads, C // self.heads).transpose(1, 2) for p in parts)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.c_proj(y.transpose(1, 2).contiguous().view(B, T, C))


class Transformer(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int, heads: int = 2, causal: bool = False) -> None:
        super().__init__()
        self.ln_1, self.attn = nn.LayerNorm(width), Attention(width, heads, causal)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width), nn.Dropout(0.1))

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    """Token and position embeddings, blocks, and an output layer tied to the token embedding."""

    def __init__(self, vocabulary: int = 11, length: int = 6, width: int = 8, depth: int = 2) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.drop = nn.Dropout(0.1)
        self.h = nn.ModuleList(Transformer(width, causal=True) for _ in range(depth))
        self.ln_f, self.lm_head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, tokens):
        x = self.drop(self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1])))
        for block in self.h:
            x = block(x)
        return self.lm_head(self.ln_f(x))


@architecture
def gpt():
    return GPT(), (torch.randint(0, 11, (3, 6)),)


class ViT(nn.Module):
    """Patches, a class token, positional parameters, pre-norm blocks, the class token's head."""

    def __init__(self, width: int = 8, depth: int = 2) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, 4, 4)
        self.cls = nn.Parameter(torch.randn(1, 1, width))
        self.pos = nn.Parameter(torch.randn(1, 5, width))
        self.blocks = nn.ModuleList(Transformer(width) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 5)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], dim=1) + self.pos
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


@architecture
def vit():
    return ViT(), (torch.randn(3, 3, 8, 8),)


class PostNorm(nn.Module):
    """BERT's order: the norm after each join; GELU written by hand."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.embed, self.query, self.key = nn.Embedding(11, width), nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.out, self.norm1 = nn.Linear(width, width), nn.Linear(width, width), nn.LayerNorm(width)
        self.up, self.down, self.norm2 = nn.Linear(width, 16), nn.Linear(16, width), nn.LayerNorm(width)
        self.head = nn.Linear(width, 5)

    def forward(self, tokens):
        x = self.embed(tokens)
        scores = self.query(x) @ self.key(x).transpose(1, 2) / 8**0.5
        x = self.norm1(x + self.out(torch.softmax(scores, dim=-1) @ self.value(x)))
        h = self.up(x)
        h = 0.5 * h * (1.0 + torch.tanh(0.7978845608 * (h + 0.044715 * torch.pow(h, 3.0))))
        return self.head(self.norm2(x + self.down(h))[:, 0])


@architecture
def bert():
    return PostNorm(), (torch.randint(0, 11, (3, 6)),)


class RMSNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


class SwiGLU(nn.Module):
    """Llama's block without the attention: hand-written RMSNorm, gated MLP."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.norm, self.gate, self.up = RMSNorm(width), nn.Linear(width, 12), nn.Linear(width, 12)
        self.down = nn.Linear(12, width)

    def forward(self, x):
        y = self.norm(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


@architecture
def llama():
    return nn.Sequential(nn.Linear(6, 8), SwiGLU(), SwiGLU(), RMSNorm(8), nn.Linear(8, 5)), (torch.randn(4, 6),)


class Mixer(nn.Module):
    def __init__(self, tokens: int = 4, width: int = 8) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.token = nn.Sequential(nn.Linear(tokens, 6), nn.GELU(), nn.Linear(6, tokens))
        self.channel = nn.Sequential(nn.Linear(width, 12), nn.GELU(), nn.Linear(12, width))

    def forward(self, x):
        x = x + self.token(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channel(self.norm2(x))


class MLPMixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 4, 4)
        self.mixers = nn.ModuleList(Mixer() for _ in range(2))
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        for mixer in self.mixers:
            x = mixer(x)
        return self.head(x.mean(dim=1))


@architecture
def mixer():
    return MLPMixer(), (torch.randn(3, 3, 8, 8),)


class Inception(nn.Module):
    """Parallel branches of different depth, concatenated."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(inputs, 3, 1)
        self.three = nn.Sequential(nn.Conv2d(inputs, 2, 1), nn.ReLU(), nn.Conv2d(2, 3, 3, padding=1))
        self.pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Conv2d(inputs, 2, 1))

    def forward(self, x):
        return F.relu(torch.cat([self.one(x), self.three(x), self.pool(x)], dim=1))


class GoogLeNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.inception1, self.inception2 = Inception(4), Inception(8)
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        x = F.max_pool2d(self.inception1(F.relu(self.stem(x))), 2)
        return self.fc(self.inception2(x).mean((2, 3)))


@architecture
def inception():
    return GoogLeNet(), (torch.randn(3, 3, 8, 8),)


class Double(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(inputs, outputs, 3, padding=1), nn.Conv2d(outputs, outputs, 3, padding=1)

    def forward(self, x):
        return F.relu(self.b(F.relu(self.a(x))))


class UNet(nn.Module):
    """Skips from each encoder to its decoder; the output is a map."""

    def __init__(self) -> None:
        super().__init__()
        self.enc1, self.enc2, self.mid = Double(2, 4), Double(4, 6), Double(6, 6)
        self.up2, self.dec2 = nn.ConvTranspose2d(6, 6, 2, 2), Double(12, 4)
        self.up1, self.dec1 = nn.ConvTranspose2d(4, 4, 2, 2), Double(8, 4)
        self.out = nn.Conv2d(4, 3, 1)

    def forward(self, x):
        e1 = self.enc1(x)
        e2 = self.enc2(F.max_pool2d(e1, 2))
        m = self.mid(F.max_pool2d(e2, 2))
        d2 = self.dec2(torch.cat([self.up2(m), e2], dim=1))
        return self.out(self.dec1(torch.cat([self.up1(d2), e1], dim=1)))


@architecture
def unet():
    return UNet(), (torch.randn(2, 2, 8, 8),)


class Dense(nn.Module):
    """DenseNet: every layer reads all before it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.layers = nn.ModuleList(nn.Conv2d(4 + 2 * k, 2, 3, padding=1) for k in range(3))
        self.transition, self.fc = nn.Conv2d(10, 5, 1), nn.Linear(5, 5)

    def forward(self, x):
        found = [F.relu(self.stem(x))]
        for layer in self.layers:
            found.append(F.relu(layer(torch.cat(found, dim=1))))
        return self.fc(F.avg_pool2d(self.transition(torch.cat(found, dim=1)), 2).mean((2, 3)))


@architecture
def densenet():
    return Dense(), (torch.randn(3, 3, 4, 4),)


class Tabular(nn.Module):
    """One embedding per categorical column beside the numeric columns."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.ModuleList(nn.Embedding(5, 3) for _ in range(3))
        self.fc1, self.norm, self.out = nn.Linear(13, 8), nn.BatchNorm1d(8), nn.Linear(8, 5)

    def forward(self, columns, numbers):
        found = [table(columns[:, k]) for k, table in enumerate(self.embed)]
        return self.out(F.relu(self.norm(self.fc1(torch.cat([*found, numbers], dim=1)))))


@architecture
def tabular():
    return Tabular(), (torch.randint(0, 5, (4, 3)), torch.randn(4, 4))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.fc = nn.LSTM(4, 6, num_layers=2, batch_first=True), nn.Linear(6, 5)

    def forward(self, x):
        states, _ = self.lstm(x)
        return self.fc(states[:, -1])


@architecture
def lstm():
    return Recurrent(), (torch.randn(3, 5, 4),)


@architecture
def autoencoder():
    return nn.Sequential(
        nn.Linear(12, 8), nn.ELU(), nn.Linear(8, 3), nn.ELU(), nn.Linear(3, 8), nn.ELU(), nn.Linear(8, 12)
    ), (torch.randn(4, 12),)


class Shared(nn.Module):
    """A layer used twice, a layer read by two, a gate that multiplies: neither a chain nor a residual network."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.out = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(16, 5)

    def forward(self, x):
        z = torch.tanh(self.a(x))
        y = torch.tanh(self.b(torch.tanh(self.b(z))))
        gate = torch.sigmoid(self.c(z))
        return self.out(torch.cat([y * gate, z], dim=1))


@architecture
def shared():
    return Shared(), (torch.randn(4, 6),)
