//! A unit that never fires, through the pipeline's eyes.

use scrubjay::block::Block;
use scrubjay::codec::{Columns, statistic};
use scrubjay::data::Samples;
use scrubjay::device::Device;
use scrubjay::net::{LayerId, Shape, UnitId};
use scrubjay::observe::{evaluate, observe};
use scrubjay::ops::philox::{Stream, Use};
use scrubjay::zoo;

#[test]
fn a_unit_that_never_fires_is_observed_as_constant_and_has_no_t() {
    let shape = Shape::new(9, 8, 3);
    let mut net = zoo::create("cnn:4-6", shape, 4, 11).unwrap().network.freeze();
    let mut stream = Stream::new(12, Use::Choice, 0);
    let x = (0..30 * shape.len()).map(|_| stream.normal()).collect();
    let samples =
        Samples { kind: shape.into(), x, y: (0..30).map(|_| stream.below(4) as u32).collect(), stream: None };

    let unit = UnitId(net.units().of_layer(LayerId(1)).start as u32 + 2);
    let block = Block::of(&net, &[unit]).unwrap();
    block.assign(&mut net, &vec![0.0; block.len()]); // a filter of zeros
    let device = Device::cpu().unwrap();
    let trace = observe(&device, &net, &samples).unwrap();
    let column: Vec<f64> =
        (0..30).map(|i| f64::from(trace.activations[i * trace.d + unit.index()])).collect();
    assert!(column.iter().all(|&a| a == 0.0), "{column:?}");
    let losses: Vec<f64> = trace.losses.iter().map(|&loss| f64::from(loss)).collect();
    let t = statistic(
        &device,
        &losses,
        &Columns::from_columns_f64(&column, 30, 1).unwrap(),
        &[0],
        &[],
        &Default::default(),
    );
    let t = t.unwrap().value.unwrap();
    assert!(t.abs() < 0.05, "{t}");
    assert_eq!(evaluate(&device, &net, &samples).unwrap().losses, trace.losses);
}
