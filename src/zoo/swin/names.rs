//! The tensor names of Swin transformers in torchvision, timm and Hugging Face.

use super::super::names::Form;

/// A library's names of the parts.
pub(super) struct Names {
    pub patches: &'static str,
    pub patch_norm: &'static str,
    /// What the blocks of stage `s`, from 0 on, are in.
    pub stage: fn(usize) -> String,
    /// What joins squares before stage `s`: in a place of that stage's.
    pub joined: fn(usize) -> Option<String>,
    /// In one of the stage before.
    pub joined_before: fn(usize) -> Option<String>,
    pub norm1: &'static str,
    /// One layer, or three.
    pub qkv: &'static [&'static str],
    pub table: &'static str,
    pub proj: &'static str,
    pub norm2: &'static str,
    pub mlp: [&'static str; 2],
    pub norm: &'static str,
    pub heads: &'static [&'static str],
    /// Whether a map that is as small as a window along one side is shifted along neither.
    pub both: bool,
}

const TORCHVISION: Names = Names {
    patches: "features.0.0",
    patch_norm: "features.0.2",
    stage: |s| format!("features.{}", 2 * s + 1),
    joined: |s| Some(format!("features.{}", 2 * s)),
    joined_before: |_| None,
    mlp: ["mlp.0", "mlp.3"],
    heads: &["head"],
    ..TIMM
};

const TIMM: Names = Names {
    patches: "patch_embed.proj",
    patch_norm: "patch_embed.norm",
    stage: |s| format!("layers.{s}.blocks"),
    // Only where the first stage has none is it that of the own stage.
    joined: |s| Some(format!("layers.{s}.downsample")).filter(|_| s > 0),
    joined_before: |_| None,
    norm1: "norm1",
    qkv: &["attn.qkv"],
    table: "attn.relative_position_bias_table",
    proj: "attn.proj",
    norm2: "norm2",
    mlp: ["mlp.fc1", "mlp.fc2"],
    norm: "norm",
    heads: &["head.fc", "head"],
    both: false,
};

const HUGGING_FACE: Names = Names {
    patches: "swin.embeddings.patch_embeddings.projection",
    patch_norm: "swin.embeddings.norm",
    stage: |s| format!("swin.encoder.layers.{s}.blocks"),
    joined: |_| None,
    joined_before: |s| Some(format!("swin.encoder.layers.{}.downsample", s.checked_sub(1)?)),
    norm1: "layernorm_before",
    qkv: &["attention.self.query", "attention.self.key", "attention.self.value"],
    table: "attention.self.relative_position_bias_table",
    proj: "attention.output.dense",
    norm2: "layernorm_after",
    mlp: ["intermediate.dense", "output.dense"],
    norm: "swin.layernorm",
    heads: &["classifier"],
    both: true,
};

/// The names since version 5 of the library.
const HUGGING_FACE_5: Names = Names {
    qkv: &["attention.q_proj", "attention.k_proj", "attention.v_proj"],
    table: "attention.relative_position_bias.relative_position_bias_table",
    proj: "attention.o_proj",
    mlp: ["mlp.fc1", "mlp.fc2"],
    ..HUGGING_FACE
};

pub(super) const NAMES: [Names; 4] = [TORCHVISION, TIMM, HUGGING_FACE, HUGGING_FACE_5];

pub(super) const FORMS: &[Form] = &[
    Form {
        needs: &[
            "features.0.0.weight",
            "features.1.0.attn.relative_position_bias_table",
            "features.1.0.attn.qkv.weight",
            "norm.weight",
            "head.weight|head.#.weight",
        ],
        others: &[
            "features.0.#.*",
            "features.#.norm.*",
            "features.#.reduction.weight",
            "features.#.#.norm#.*",
            "features.#.#.attn.*",
            "features.#.#.mlp.#.*",
            "norm.*",
            "head.*",
        ],
        lacks: &["features.#.#.attn.logit_scale", "features.#.#.attn.cpb_mlp.*"],
    },
    Form {
        needs: &[
            "patch_embed.proj.weight",
            "patch_embed.norm.weight",
            "layers.0.blocks.0.attn.relative_position_bias_table",
            "layers.0.blocks.0.attn.qkv.weight",
            "norm.weight",
            "head.fc.weight|head.weight|head.#.weight|head.fc.#.weight",
        ],
        others: &[
            "patch_embed.*",
            "layers.#.downsample.*",
            "layers.#.blocks.#.norm#.*",
            "layers.#.blocks.#.attn.*",
            "layers.#.blocks.#.mlp.fc#.*",
            "norm.*",
            "head.*",
        ],
        lacks: &["layers.#.blocks.#.attn.logit_scale", "layers.#.blocks.#.attn.cpb_mlp.*"],
    },
    Form {
        needs: &[
            "swin.embeddings.patch_embeddings.projection.weight",
            "swin.embeddings.norm.weight",
            "swin.encoder.layers.0.blocks.0.attention.self.relative_position_bias_table|\
             swin.encoder.layers.0.blocks.0.attention.relative_position_bias.relative_position_bias_table",
            "classifier.weight|classifier.#.weight",
        ],
        others: &["swin.embeddings.*", "swin.encoder.layers.#.*", "swin.layernorm.*", "classifier.*"],
        lacks: &[],
    },
];
