//! The tensor names of vision transformers in timm, torchvision and Hugging Face.

use super::super::names::Form;
use crate::net::Activation;

/// A library's names of the parts.
pub(super) struct Names {
    pub patches: &'static str,
    pub class_token: &'static str,
    pub distillation_token: &'static str,
    /// Learned tokens behind the class token, which have no positions.
    pub registers: &'static str,
    pub positions: &'static str,
    /// The norm before the first block, of models that have one.
    pub norm_pre: &'static str,
    /// A block's name without its number.
    pub block: &'static str,
    pub norm1: &'static str,
    pub qkv: Qkv,
    pub proj: &'static str,
    pub norm2: &'static str,
    pub fc1: &'static str,
    pub fc2: &'static str,
    /// Layer scales behind attention and behind the hidden layer, of blocks that have them.
    pub scales: [&'static str; 2],
    pub norm: &'static str,
    pub heads: &'static [&'static str],
    /// The head that reads the distillation token.
    pub distilled: &'static str,
    /// What the head reads, where a class token is.
    pub reads: HeadReads,
    pub eps: f32,
    pub activation: Activation,
}

/// What a head reads.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum HeadReads {
    /// The class token.
    Token,
    /// The mean of the patches.
    Mean,
    /// The class token and, behind it, the mean of the patches.
    Both,
}

/// How queries, keys and values are made.
pub(super) enum Qkv {
    /// By one layer.
    Packed(&'static str),
    /// By PyTorch's `MultiheadAttention` of this name, with `in_proj_weight` and `in_proj_bias`.
    Projected(&'static str),
    /// By three layers.
    Parts([&'static str; 3]),
    /// By three layers, of keys, values and queries in this order.
    KeysFirst([&'static str; 3]),
}

impl Qkv {
    /// The first tensor.
    pub fn weight(&self) -> String {
        match self {
            Qkv::Packed(name) => format!("{name}.weight"),
            Qkv::Projected(name) => format!("{name}.in_proj_weight"),
            Qkv::Parts(names) | Qkv::KeysFirst(names) => format!("{}.weight", names[0]),
        }
    }
}

pub(super) const TIMM: Names = Names {
    patches: "patch_embed.proj",
    class_token: "cls_token",
    distillation_token: "dist_token",
    registers: "reg_token",
    positions: "pos_embed",
    norm_pre: "norm_pre",
    block: "blocks.",
    norm1: "norm1",
    qkv: Qkv::Packed("attn.qkv"),
    proj: "attn.proj",
    norm2: "norm2",
    fc1: "mlp.fc1",
    fc2: "mlp.fc2",
    scales: ["ls1.gamma", "ls2.gamma"],
    norm: "norm",
    heads: &["head"],
    distilled: "head_dist",
    reads: HeadReads::Token,
    eps: 1e-6,
    activation: Activation::Gelu,
};

const TORCHVISION: Names = Names {
    patches: "conv_proj",
    class_token: "class_token",
    distillation_token: "distillation_token",
    positions: "encoder.pos_embedding",
    block: "encoder.layers.encoder_layer_",
    norm1: "ln_1",
    qkv: Qkv::Projected("self_attention"),
    proj: "self_attention.out_proj",
    norm2: "ln_2",
    fc1: "mlp.0",
    fc2: "mlp.3",
    norm: "encoder.ln",
    heads: &["heads.head", "heads"],
    ..TIMM
};

/// The names of torchvision's first version, which its published files still have.
const TORCHVISION_1: Names =
    Names { qkv: Qkv::Projected("self_attention"), fc1: "mlp.linear_1", fc2: "mlp.linear_2", ..TORCHVISION };

const HUGGING_FACE: Names = Names {
    patches: "vit.embeddings.patch_embeddings.projection",
    class_token: "vit.embeddings.cls_token",
    distillation_token: "vit.embeddings.distillation_token",
    positions: "vit.embeddings.position_embeddings",
    block: "vit.encoder.layer.",
    norm1: "layernorm_before",
    qkv: Qkv::Parts(["attention.attention.query", "attention.attention.key", "attention.attention.value"]),
    proj: "attention.output.dense",
    norm2: "layernorm_after",
    fc1: "intermediate.dense",
    fc2: "output.dense",
    norm: "vit.layernorm",
    heads: &["classifier"],
    eps: 1e-12,
    ..TIMM
};

/// The names since version 5 of the library, which still reads the older ones.
const HUGGING_FACE_5: Names = Names {
    block: "vit.layers.",
    qkv: Qkv::Parts(["attention.q_proj", "attention.k_proj", "attention.v_proj"]),
    proj: "attention.o_proj",
    fc1: "mlp.fc1",
    fc2: "mlp.fc2",
    ..HUGGING_FACE
};

const HUGGING_FACE_DEIT: Names = Names {
    patches: "deit.embeddings.patch_embeddings.projection",
    class_token: "deit.embeddings.cls_token",
    distillation_token: "deit.embeddings.distillation_token",
    positions: "deit.embeddings.position_embeddings",
    block: "deit.encoder.layer.",
    norm: "deit.layernorm",
    heads: &["classifier", "cls_classifier"],
    distilled: "distillation_classifier",
    ..HUGGING_FACE
};

const HUGGING_FACE_DEIT_5: Names = Names {
    block: "deit.layers.",
    qkv: Qkv::Parts(["attention.q_proj", "attention.k_proj", "attention.v_proj"]),
    proj: "attention.o_proj",
    fc1: "mlp.fc1",
    fc2: "mlp.fc2",
    ..HUGGING_FACE_DEIT
};

const HUGGING_FACE_DINOV2: Names = Names {
    patches: "dinov2.embeddings.patch_embeddings.projection",
    class_token: "dinov2.embeddings.cls_token",
    positions: "dinov2.embeddings.position_embeddings",
    block: "dinov2.encoder.layer.",
    norm1: "norm1",
    norm2: "norm2",
    fc1: "mlp.fc1",
    fc2: "mlp.fc2",
    scales: ["layer_scale1.lambda1", "layer_scale2.lambda1"],
    norm: "dinov2.layernorm",
    reads: HeadReads::Both,
    eps: 1e-6,
    ..HUGGING_FACE
};

const HUGGING_FACE_DINOV2_5: Names = Names {
    qkv: Qkv::Parts(["attention.q_proj", "attention.k_proj", "attention.v_proj"]),
    proj: "attention.o_proj",
    ..HUGGING_FACE_DINOV2
};

const HUGGING_FACE_CLIP: Names = Names {
    patches: "vision_model.embeddings.patch_embedding",
    class_token: "vision_model.embeddings.class_embedding",
    positions: "vision_model.embeddings.position_embedding.weight",
    norm_pre: "vision_model.pre_layrnorm",
    block: "vision_model.encoder.layers.",
    norm1: "layer_norm1",
    qkv: Qkv::KeysFirst(["self_attn.k_proj", "self_attn.v_proj", "self_attn.q_proj"]),
    proj: "self_attn.out_proj",
    norm2: "layer_norm2",
    fc1: "mlp.fc1",
    fc2: "mlp.fc2",
    norm: "vision_model.no_norm", // that of the class token plays no part
    reads: HeadReads::Mean,
    eps: 1e-5,
    activation: Activation::QuickGelu,
    ..HUGGING_FACE
};

pub(super) const NAMES: [Names; 10] = [
    TIMM,
    TORCHVISION,
    TORCHVISION_1,
    HUGGING_FACE,
    HUGGING_FACE_5,
    HUGGING_FACE_DEIT,
    HUGGING_FACE_DEIT_5,
    HUGGING_FACE_DINOV2,
    HUGGING_FACE_DINOV2_5,
    HUGGING_FACE_CLIP,
];

pub const FORMS: &[Form] = &[
    Form {
        needs: &[
            "patch_embed.proj.weight",
            "pos_embed",
            "blocks.0.attn.qkv.weight",
            "head.weight|head.#.weight",
        ],
        others: &[
            "patch_embed.proj.bias",
            "cls_token",
            "dist_token",
            "reg_token",
            "norm_pre.*",
            "blocks.#.norm#.*",
            "blocks.#.ls#.gamma",
            "blocks.#.attn.qkv.*",
            "blocks.#.attn.proj.*",
            "blocks.#.mlp.fc#.*",
            "norm.*",
            "fc_norm.*",
            "head.*",
            "head_dist.*",
        ],
        lacks: &[],
    },
    Form {
        needs: &[
            "conv_proj.weight",
            "encoder.pos_embedding",
            "encoder.layers.encoder_layer_0.self_attention.in_proj_weight",
            "heads.head.weight|heads.head.#.weight|heads.weight|heads.#.weight",
        ],
        others: &[
            "conv_proj.bias",
            "class_token",
            "encoder.layers.encoder_layer_#.ln_#.*",
            "encoder.layers.encoder_layer_#.self_attention.in_proj_bias",
            "encoder.layers.encoder_layer_#.self_attention.out_proj.*",
            "encoder.layers.encoder_layer_#.mlp.#.*",
            "encoder.layers.encoder_layer_#.mlp.linear_#.*",
            "encoder.ln.*",
            "heads.*",
        ],
        lacks: &[],
    },
    Form {
        needs: &[
            "vit.embeddings.patch_embeddings.projection.weight|deit.embeddings.patch_embeddings.projection.weight",
            "vit.embeddings.position_embeddings|deit.embeddings.position_embeddings",
            "vit.encoder.layer.0.attention.attention.query.weight|vit.layers.0.attention.q_proj.weight|\
             deit.encoder.layer.0.attention.attention.query.weight|deit.layers.0.attention.q_proj.weight",
            "classifier.weight|classifier.#.weight|cls_classifier.weight",
        ],
        others: &[
            "*it.embeddings.patch_embeddings.projection.bias",
            "*it.embeddings.cls_token",
            "*it.embeddings.distillation_token",
            "*it.encoder.layer.#.attention.attention.*",
            "*it.encoder.layer.#.attention.output.dense.*",
            "*it.encoder.layer.#.layernorm_*",
            "*it.encoder.layer.#.intermediate.dense.*",
            "*it.encoder.layer.#.output.dense.*",
            "*it.layers.#.attention.*_proj.*",
            "*it.layers.#.mlp.fc#.*",
            "*it.layers.#.layernorm_*",
            "*it.layernorm.*",
            "classifier.*",
            "cls_classifier.*",
            "distillation_classifier.*",
        ],
        lacks: &[],
    },
    Form {
        needs: &[
            "dinov2.embeddings.patch_embeddings.projection.weight",
            "dinov2.embeddings.position_embeddings",
            "dinov2.encoder.layer.0.attention.attention.query.weight|dinov2.encoder.layer.0.attention.q_proj.weight",
            "dinov2.encoder.layer.0.mlp.fc1.weight",
            "classifier.weight|classifier.#.weight",
        ],
        others: &["dinov2.embeddings.*", "dinov2.encoder.layer.#.*", "dinov2.layernorm.*", "classifier.*"],
        lacks: &["dinov2.embeddings.register_tokens", "dinov2.encoder.layer.#.mlp.weights_in.*"],
    },
    Form {
        needs: &[
            "vision_model.embeddings.patch_embedding.weight",
            "vision_model.embeddings.class_embedding",
            "vision_model.embeddings.position_embedding.weight",
            "vision_model.pre_layrnorm.weight",
            "vision_model.encoder.layers.0.self_attn.q_proj.weight",
            "classifier.weight|classifier.#.weight",
        ],
        others: &["vision_model.pre_layrnorm.bias", "vision_model.encoder.layers.#.*", "classifier.*"],
        lacks: &[],
    },
];
