"""The procedures on the samples of one image alone."""

from components.certification.cohen import certifying, predicting
from components.certification.preset_radii import deciding
from components.certification.sampling import answered


def certify_image(sampler, image, *, seed, index, bound="one_class", **options):
    return answered(
        certifying(sampler.sigma, bound=bound, **options), sampler.stream(image, seed=seed, index=index).count
    )


def certify_radii(sampler, image, radii, *, seed, index, n0, earlier=None, **options):
    procedure = deciding(sampler.sigma, radii, n0=n0, index=index, earlier=earlier, **options)
    start = n0 + earlier.n if earlier else 0
    return answered(procedure, sampler.stream(image, seed=seed, index=index, start=start).count)


def predict_image(sampler, image, *, seed, index, **options):
    return answered(predicting(**options), sampler.stream(image, seed=seed, index=index).count)
