//! One step of an optimizer on one tensor. Every operation is rounded by itself.

use crate::ops::optimizer::{BETAS, EPSILON, Memory, Update};

/// Moves `w` by its `gradient`, and what is remembered with it; all `[len]`.
pub fn update(w: &mut [f32], memory: &mut Memory<Vec<f32>>, gradient: &[f32], update: &Update) {
    let ([beta1, beta2], [first_part, second_part]) = (BETAS, update.corrections());
    let slope = |w: f32, i: usize| gradient[i] + update.decay * w;
    match memory {
        Memory::Sgd(u) => {
            for (i, (w, u)) in w.iter_mut().zip(u).enumerate() {
                *u = update.momentum * *u + slope(*w, i);
                *w -= update.rate * *u;
            }
        }
        Memory::Adam(first, second) => {
            for (i, (w, (first, second))) in w.iter_mut().zip(first.iter_mut().zip(second)).enumerate() {
                let g = slope(*w, i);
                *first = beta1 * *first + (1.0 - beta1) * g;
                *second = beta2 * *second + (1.0 - beta2) * g * g;
                *w -= update.rate * (*first / first_part) / ((*second / second_part).sqrt() + EPSILON);
            }
        }
    }
}
