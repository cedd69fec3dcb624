//! Which loss an operation at the logits is for; [`crate::loss`] computes them on the CPU, [`super::cuda::loss`] on CUDA.

/// The loss of a network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Loss {
    /// Softmax cross-entropy against (1 − ε) onehot(y) + ε/classes, with ε = `smoothing` in [0, 1): PyTorch's
    /// `CrossEntropyLoss(label_smoothing=ε)`.
    ///
    /// ```text
    /// f = −ln p_y + ε (z_y − mean z)        p = softmax(z)
    /// ∂f/∂z = p − (1 − ε) e_y − ε/classes   ∂²f/∂z² = diag(p) − ppᵀ
    /// ```
    CrossEntropy {
        /// ε; 0 is plain cross-entropy.
        smoothing: f64,
    },
    /// The mean over L labels of binary cross-entropy: PyTorch's `BCEWithLogitsLoss`.
    ///
    /// ```text
    /// f = 1/L Σ ln(1 + exp(∓z_l)), − where label l is 1   p_l = 1/(1 + exp(−z_l))
    /// ∂f/∂z_l = (p_l − y_l)/L                             ∂²f/∂z² = diag(p_l (1 − p_l))/L
    /// ```
    BinaryCrossEntropy,
}

impl Default for Loss {
    fn default() -> Loss {
        Loss::CrossEntropy { smoothing: 0.0 }
    }
}

impl Loss {
    /// Words of label per sample, and of prediction: 1, or one per output.
    pub fn label_width(self, classes: usize) -> usize {
        match self {
            Loss::CrossEntropy { .. } => 1,
            Loss::BinaryCrossEntropy => classes,
        }
    }
}

/// The matrix at the logits that a product multiplies by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogitProduct {
    /// The second derivative of the loss: the middle factor of the Gauss-Newton matrix.
    Curvature,
    /// δδᵀ, δ being the gradient at the logits: the empirical Fisher matrix.
    Fisher,
}
