"""diffusers' own networks with the weights of loaded ones: what results are held against."""

from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from comfy.families.diffusers_names import unet_names, vae_names


def in_diffusers_names(network, names, shapes=None):
    """The weights of *network* under diffusers' names, in *shapes* where given."""
    weights = network.state_dict()
    assert weights.keys() == names.keys()
    return {name: weights[key] if shapes is None else weights[key].view(shapes[name]) for key, name in names.items()}


def unet_twin(network):
    """diffusers' UNet with the weights of *network*; hand it embedded vector conditioning through ``get_aug_embed``."""
    twin = UNet2DConditionModel(**network.config.diffusers_arguments()).eval()
    _load(twin, network, unet_names(network.config))
    return twin


def vae_twin(network):
    """diffusers' autoencoder with the weights of *network*."""
    twin = AutoencoderKL(**network.config.diffusers_arguments()).eval()
    _load(twin, network, vae_names(network.config))
    return twin


def _load(twin, network, names):
    shapes = {name: tensor.shape for name, tensor in twin.state_dict().items()}
    twin.load_state_dict(in_diffusers_names(network, names, shapes), strict=True)
