"""What can be chosen in training a restorer; the command line is generated from these fields."""

from __future__ import annotations

from dataclasses import dataclass

from gpenvid.options import option, require

STAGES = ("restorer", "prior")
PRECISIONS = ("fp32", "bf16", "fp16")


@dataclass(frozen=True, kw_only=True, slots=True)
class PrepareOptions:
    """Which faces of a folder of photographs are fit for training."""

    size: int = option(256, "side of the aligned crops in pixels")
    least_side: float = option(1.0, "leave out faces whose native crop is smaller than this share of --size")
    least_sharpness: float = option(20.0, "leave out crops whose Laplacian has a smaller variance than this")

    def __post_init__(self) -> None:
        """Refuse nonsense with an OptionsError."""
        require(self.size in (64, 128, 256, 512, 1024), "size", self.size, "64, 128, 256, 512 or 1024")
        require(self.least_side > 0, "least_side", self.least_side, "more than 0")
        require(self.least_sharpness >= 0, "least_sharpness", self.least_sharpness, "0 or more")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainOptions:
    """How a restorer is trained. One run lives in one folder; run again, it goes on where it was."""

    data: str = option("", "faces: a pack (.npy) made by `train prepare`, or a folder of sheets", metavar="PATH")
    output: str = option("run", "folder of the run: checkpoint, model, log, samples", flags=("-o", "--output"))
    stage: str = option(
        "restorer", "what to train: the restorer, or first its prior, a plain StyleGAN2", choices=STAGES
    )

    size: int = option(256, "side of the faces in pixels")
    narrow: float = option(0.5, "scale of all widths")
    channel_multiplier: float = option(1.0, "scale of the widths from 64 pixels up")
    n_mlp: int = option(8, "layers of the style network")
    style_dim: int = option(512, "length of the style")
    init: str = option("", "start from this restorer (official ones too); it sets size and widths", metavar="FILE")
    init_prior: str = option("", "take the generator from this model of a prior stage", metavar="FILE")
    init_discriminator: str = option("", "start from this discriminator", metavar="FILE")

    steps: int = option(100_000, "length of the training, on which the decay of the learning rates depends")
    minutes: float = option(0.0, "end after this time at the latest, with the decay fitted to it; 0 for no limit")
    batch: int = option(4, "pairs at once in each process")
    accumulate: int = option(1, "batches whose gradients are added up before a step")
    workers: int = option(1, "processes that degrade pictures; 0 to do it in the training process")
    seed: int = option(0, "one seed, one training (on one machine, without --minutes)")
    device: str = option("auto", "auto, cpu, cuda or cuda:N")
    precision: str = option("fp32", "arithmetic of the restorer's activations", choices=PRECISIONS)

    lr: float = option(2e-3, "learning rate of the generator, the prior")
    lr_encoder: float = option(2e-3, "learning rate of the encoder")
    lr_discriminator: float = option(2e-3, "learning rate of the discriminator")
    flat: float = option(0.4, "share of the training before the learning rates start to decay")
    freeze_prior: bool = option(False, "leave the generator as it is, but for the weights of the injected features")
    ema_half_life: float = option(10_000.0, "pictures after which an old state counts half in the averaged model")

    content: float = option(1.0, "weight of smooth L1")
    knee: float = option(0.1, "error, in [-1, 1], up to which smooth L1 is square; a smaller one minds faint noise")
    gradient: float = option(1.0, "weight of the multi-scale gradient loss")
    energy: float = option(0.3, "weight of the local gradient energy loss")
    similarity: float = option(0.05, "weight of the gradient similarity loss")
    adversarial: float = option(0.0, "weight of the adversarial loss; 0 trains without a discriminator")
    feature_matching: float = option(1.0, "weight of feature matching, beside an adversarial loss")
    r1: float = option(10.0, "weight of the discriminator's R1 penalty")
    r1_every: int = option(16, "steps between two R1 penalties")
    clean: float = option(0.1, "share of the pairs without any degradation")
    gray: float = option(0.1, "share of the pairs in black and white")
    near: float = option(0.0, "share of the pairs that are degraded at a larger size and then reduced to --size")

    checkpoint_every: int = option(500, "steps between two checkpoints")
    sample_every: int = option(500, "steps between two grids of samples")
    log_every: int = option(25, "steps between two lines of the log")
    tensorboard: str = option("", "log to TensorBoard in this folder, too (needs the extra `log`)", metavar="DIR")

    def __post_init__(self) -> None:
        """Refuse nonsense with an OptionsError."""
        require(self.stage in STAGES, "stage", self.stage, " or ".join(STAGES))
        require(self.precision in PRECISIONS, "precision", self.precision, " or ".join(PRECISIONS))
        for name in ("steps", "batch", "accumulate", "r1_every", "checkpoint_every", "sample_every", "log_every"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        for name in ("minutes", "workers", "content", "gradient", "energy", "similarity", "adversarial"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        for name in ("lr", "lr_encoder", "lr_discriminator", "ema_half_life", "knee"):
            require(getattr(self, name) > 0, name, getattr(self, name), "more than 0")
        for name in ("flat", "clean", "gray", "near"):
            require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "0 to 1")
        require(self.feature_matching >= 0, "feature_matching", self.feature_matching, "0 or more")
        require(self.r1 >= 0, "r1", self.r1, "0 or more")
        deviates = self.adversarial > 0 or self.stage == "prior"
        require(
            not deviates or self.batch <= 4 or self.batch % 4 == 0, "batch", self.batch, "at most 4 or a multiple of 4"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectorTraining:
    """How a detector is trained. A run is a function of these values: two with the same agree on a CPU."""

    data: str = option("", "folder of sheets with an index.json", metavar="DIR")
    out: str = option(
        "detector", "folder for checkpoints, the log and the scenes", flags=("-o", "--out"), metavar="DIR"
    )
    teacher: str = option("", "RetinaFace mobile0.25 weights whose averaged answers replace the index's labels")
    init: str = option("", "start from this detector instead of random numbers", metavar="FILE")
    closeups: bool = option(False, "train what places the landmarks at the second look, on close-ups; no last fit")
    steps: int = option(20000, "length of the schedule")
    decay: float = option(0.4, "share of the steps, at the end, over which the learning rate falls to zero")
    minutes: float = option(0.0, "stop after this time, ready to be resumed; 0 for no limit")
    rate: float = option(3e-3, "learning rate of AdamW")
    batch: int = option(8, "pictures in a step")
    size: int = option(256, "side of a picture in pixels, a multiple of 64")
    large: int = option(4, "every so many steps, a quarter of the pictures at twice the side; 0 for never")
    pool: int = option(12000, "scenes composed; a quarter as many of the large ones")
    fresh: float = option(1.0, "scenes by which the part of the pool that is drawn from grows each step")
    ema: float = option(0.995, "decay of the averaged weights, which are the result")
    hard: int = option(2, "pictures of a step that are faceless and taken for faces so far; 0 for none")
    mine_every: int = option(400, "steps after which such pictures are looked for anew")
    mine: int = option(400, "faceless pictures that are looked at each time")
    refit: int = option(
        240, "scenes (and six times as many faceless ones) for a last fit of the last layers; 0 for none"
    )
    workers: int = option(0, "processes that compose scenes ahead; 0 composes when a scene is first drawn")
    save_every: int = option(500, "steps between checkpoints")
    seed: int = option(1, "seed of everything random")

    def __post_init__(self) -> None:
        """Refuse nonsense with an OptionsError."""
        require(self.size >= 64 and self.size % 64 == 0, "size", self.size, "a multiple of 64")
        for name in ("steps", "batch", "pool", "save_every", "mine_every", "mine"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        require(0 <= self.hard < self.batch, "hard", self.hard, f"0 or more and less than --batch {self.batch}")
        for name in ("decay", "ema"):
            require(0 <= getattr(self, name) < 1, name, getattr(self, name), "from 0 to below 1")
