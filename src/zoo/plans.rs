//! Plans of published networks: the names and shapes of their tensors, as torchvision, timm or common CIFAR code have
//! them, at the published size or at another width. docs/MODELS.md lists the descriptions.

mod convolutional;
mod inverted;
mod plan;
mod tokens;

use super::init::Init;
use crate::error::Result;
use crate::net::Shape;

pub(super) use plan::Plan;
use plan::Spec;

/// Declares the tensors of the network that a description names; `None` where it names none of these.
///
/// # Errors
/// Where its numbers are not as many as they should be, or make no such network.
pub(super) fn declare(
    init: &mut Init,
    (text, name, sizes): (&str, &str, &[usize]),
    image: Shape,
    classes: usize,
) -> Result<Option<Plan>> {
    let spec = Spec { text, name, sizes, image, classes };
    for plan in [convolutional::declare, inverted::declare, tokens::declare] {
        if let Some(plan) = plan(init, &spec)? {
            return Ok(Some(plan));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of the parameters, without running statistics.
    fn parameters(name: &str, sizes: &[usize], image: Shape) -> usize {
        let mut init = Init::new(1);
        declare(&mut init, (name, name, sizes), image, 1000).unwrap().unwrap_or_else(|| panic!("{name}"));
        let trained = init.shapes.iter().filter(|(name, _)| !name.contains("running"));
        trained.map(|(_, shape)| shape.iter().product::<usize>()).sum()
    }

    #[test]
    fn published_networks_have_as_many_parameters_as_published() {
        // By the libraries' own tables, or counted in what they make.
        let published = Shape::new(224, 224, 3);
        for (name, count) in [
            ("resnet18", 11_689_512),
            ("resnet34", 21_797_672),
            ("resnet50", 25_557_032),
            ("resnet101", 44_549_160),
            ("resnet152", 60_192_808),
            ("resnext50_32x4d", 25_028_904),
            ("wide_resnet50_2", 68_883_240),
            ("vgg11", 132_863_336),
            ("vgg16", 138_357_544),
            ("vgg16_bn", 138_365_992),
            ("vgg19_bn", 143_678_248),
            ("densenet121", 7_978_856),
            ("densenet161", 28_681_000),
            ("densenet169", 14_149_480),
            ("densenet201", 20_013_928),
            ("mobilenet_v2", 3_504_872),
            ("mobilenet_v3_large", 5_483_032),
            ("mobilenet_v3_small", 2_542_856),
            ("efficientnet_b0", 5_288_548),
            ("efficientnet_b1", 7_794_184),
            ("efficientnet_b2", 9_109_994),
            ("efficientnet_b3", 12_233_232),
            ("efficientnet_b4", 19_341_616),
            ("efficientnet_b5", 30_389_784),
            ("efficientnet_b6", 43_040_704),
            ("efficientnet_b7", 66_347_960),
            ("efficientnet_v2_s", 21_458_488),
            ("efficientnet_v2_m", 54_139_356),
            ("efficientnet_v2_l", 118_515_272),
            ("regnet_y_400mf", 4_344_144),
            ("regnet_y_800mf", 6_432_512),
            ("regnet_y_1_6gf", 11_202_430),
            ("regnet_y_3_2gf", 19_436_338),
            ("regnet_y_8gf", 39_381_472),
            ("regnet_y_16gf", 83_590_140),
            ("regnet_y_32gf", 145_046_770),
            ("regnet_y_128gf", 644_812_894),
            ("regnet_x_400mf", 5_495_976),
            ("regnet_x_800mf", 7_259_656),
            ("regnet_x_1_6gf", 9_190_136),
            ("regnet_x_3_2gf", 15_296_552),
            ("regnet_x_8gf", 39_572_648),
            ("regnet_x_16gf", 54_278_536),
            ("regnet_x_32gf", 107_811_560),
            ("alexnet", 61_100_840),
            ("osnet_x1_0", 2_682_508),
            ("osnet_x0_75", 1_798_754),
            ("osnet_x0_5", 1_143_034),
            ("osnet_x0_25", 714_864),
            ("convnext_tiny", 28_589_128),
            ("convnext_small", 50_223_688),
            ("convnext_base", 88_591_464),
            ("convnext_large", 197_767_336),
            ("vit_base_patch16", 86_567_656),
            ("vit_large_patch16", 304_326_632),
            ("swin_t", 28_288_354),
            ("swin_s", 49_606_258),
            ("swin_b", 87_768_224),
            ("mixer_s16", 18_528_264),
            ("mixer_b16", 59_880_472),
        ] {
            assert_eq!(parameters(name, &[], published), count, "{name}");
        }
    }

    #[test]
    fn narrow_networks_are_composed_and_their_configs_name_the_family() {
        for (name, sizes, side) in [
            ("resnet18", &[4][..], 16),
            ("resnet50", &[4], 64),
            ("resnext50_32x4d", &[16], 16),
            ("wrn-10-1", &[], 16),
            ("vgg11_bn", &[4], 32),
            ("vgg11", &[2], 64),
            ("densenet121", &[2], 16),
            ("mobilenet_v2", &[8], 32),
            ("mobilenet_v3_large", &[4], 32),
            ("mobilenet_v3_small", &[4], 32),
            ("efficientnet_b0", &[8], 32),
            ("efficientnet_b5", &[8], 32),
            ("efficientnet_v2_s", &[8], 32),
            ("efficientnet_v2_m", &[8], 32),
            ("regnet_x_400mf", &[8], 32),
            ("regnet_y_1_6gf", &[4], 32),
            ("alexnet", &[4], 64),
            ("osnet_x0_25", &[4], 64),
            ("convnext_tiny", &[4], 32),
            ("vit", &[8, 2, 2, 4], 16),
            ("swin_t", &[3], 224),
            ("mixer", &[8, 2, 4], 16),
        ] {
            let (image, mut init) = (Shape::new(side, side, 3), Init::new(1));
            let plan = declare(&mut init, (name, name, sizes), image, 5).unwrap().unwrap();
            let (family, declared) = (plan.family, init.shapes.len());
            let (network, config) =
                plan.network(&mut init, image, 5).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!((network.classes(), network.params.len()), (5, declared), "{name}");
            let architecture = config["architecture"].as_str().unwrap();
            assert!((family.named)(architecture) || architecture == family.name, "{name}: {architecture}");
        }
    }

    #[test]
    fn what_is_none_of_them_is_left_to_others_or_refused() {
        let (image, mut init) = (Shape::new(32, 32, 3), Init::new(1));
        for name in ["resnet21", "cat", "vgg12", "vit_huge", "mlp", "wrn-15-2", "wrn-16"] {
            assert!(declare(&mut init, (name, name, &[]), image, 5).unwrap().is_none(), "{name}");
        }
        for (name, sizes) in
            [("vgg11", &[1, 2][..]), ("vit", &[8, 2]), ("vit", &[9, 2, 2, 4]), ("vit", &[8, 2, 2, 5])]
        {
            assert!(declare(&mut init, (name, name, sizes), image, 5).is_err(), "{name} {sizes:?}");
        }
    }
}
