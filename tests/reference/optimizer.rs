//! An optimizer's step by plain loops, each operation rounded by itself.

/// What a step is given.
pub struct Step {
    pub rate: f32,
    pub momentum: f32,
    pub decay: f32,
    /// From 1.
    pub number: i32,
}

/// SGD with momentum, in place.
pub fn sgd(w: &mut [f32], u: &mut [f32], gradient: &[f32], step: &Step) {
    for i in 0..w.len() {
        let decayed = step.decay * w[i];
        let g = gradient[i] + decayed;
        let kept = step.momentum * u[i];
        u[i] = kept + g;
        let moved = step.rate * u[i];
        w[i] -= moved;
    }
}

/// Adam, in place.
pub fn adam(w: &mut [f32], first: &mut [f32], second: &mut [f32], gradient: &[f32], step: &Step) {
    let (beta, beta_of_squares) = (0.9f32, 0.999f32);
    let (left, left_of_squares) = (1.0 - beta, 1.0 - beta_of_squares);
    for i in 0..w.len() {
        let decayed = step.decay * w[i];
        let g = gradient[i] + decayed;
        let (kept, new) = (beta * first[i], left * g);
        first[i] = kept + new;
        let (kept, new) = (beta_of_squares * second[i], left_of_squares * g * g);
        second[i] = kept + new;
        let mean = first[i] / (1.0 - beta.powi(step.number));
        let square = second[i] / (1.0 - beta_of_squares.powi(step.number));
        w[i] -= step.rate * mean / (square.sqrt() + 1e-8);
    }
}
