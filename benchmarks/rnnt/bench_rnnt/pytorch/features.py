"""Waveforms to features on a device, a batch at once: each utterance's are those that it would have alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench_rnnt import features as constants


class Featurizer(nn.Module):
    """The official steps in their order: pre-emphasis, power spectrum, mel, log, splice, normalise."""

    window: Tensor
    filters: Tensor

    def __init__(self) -> None:
        super().__init__()
        side = (constants.FFT - constants.WINDOW) // 2
        window = torch.nn.functional.pad(torch.from_numpy(constants.hann()), (side, side))
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("filters", torch.from_numpy(constants.mel_filters()).T.contiguous(), persistent=False)

    def forward(self, waves: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """int16 waves [B, N], lengths [B] in samples -> float32 ([T, B, 240], lengths [B] in joined frames).

        Zeros come after an utterance's end. Lengths are `features.SHORTEST` or more.
        """
        x = self.log_mel(waves, lengths)
        frames = 1 + lengths // constants.HOP
        x = _masked(x, frames)  # what is spliced in from behind the end is zero
        joined = constants.joined_frames(lengths)
        x = normalised(spliced(x)[:, : constants.joined_frames(waves.shape[1])], joined)
        return x.transpose(0, 1), joined

    def log_mel(self, waves: Tensor, lengths: Tensor) -> Tensor:
        """[B, 1 + N // 160, 80]; behind an utterance's 1 + length // 160 frames stands whatever there is."""
        x = mirrored(preemphasised(waves.float() / 32768), lengths, constants.FFT // 2)
        # one by one on a CPU: what an utterance's steps hand on then stays in its cache
        parts = x.tensor_split(len(x)) if x.device.type == "cpu" else (x,)
        return torch.cat([self._log_mel(part) for part in parts])

    def _log_mel(self, x: Tensor) -> Tensor:
        spectrum = torch.fft.rfft(x.unfold(1, constants.FFT, constants.HOP) * self.window)
        power = torch.addcmul(spectrum.real.square(), spectrum.imag, spectrum.imag) + constants.DITHER**2
        return torch.log(power @ self.filters + constants.LOG_FLOOR)


def preemphasised(x: Tensor) -> Tensor:
    """[B, N]: each sample less 0.97 of the one before; the first stays."""
    return torch.cat([x[:, :1], torch.sub(x[:, 1:], x[:, :-1], alpha=constants.PREEMPHASIS)], dim=1)


def mirrored(x: Tensor, lengths: Tensor, more: int) -> Tensor:
    """[B, N + 2 more]: each utterance continued on both sides by its mirror image, wherever it ends."""
    padded = torch.nn.functional.pad(x, (more, more))
    padded[:, :more] = x[:, 1 : more + 1].flip(1)
    steps, ends = torch.arange(more, device=x.device), lengths[:, None]
    return padded.scatter_(1, more + ends + steps, x.gather(1, ends - 2 - steps))


def spliced(x: Tensor) -> Tensor:
    """[B, T, 80] -> [B, ceil(T / 3), 240]: a frame, the next and the one after it; zeros after the last."""
    x = torch.nn.functional.pad(x, (0, 0, 0, -x.shape[1] % constants.SPLICE))
    return x.reshape(len(x), -1, constants.SPLICED)


def normalised(x: Tensor, lengths: Tensor) -> Tensor:
    """[B, T, F]: each feature with mean 0 and deviation 1 over the utterance's own frames; zeros after them.

    The official app adds the deviation's floor once for each sample of a batch; it runs batches of one only.
    """
    count = lengths[:, None, None]
    mean = _masked(x, lengths).sum(1, keepdim=True) / count
    centred = _masked(x - mean, lengths)
    deviation = (centred.square().sum(1, keepdim=True) / (count - 1)).sqrt()
    return centred / (deviation + constants.DEVIATION_FLOOR)


def _masked(x: Tensor, lengths: Tensor) -> Tensor:
    """Zeros from each utterance's end on."""
    past = torch.arange(x.shape[1], device=x.device) >= lengths[:, None]
    return x.masked_fill(past[:, :, None], 0)
