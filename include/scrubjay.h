/*
scrubjay.h: removes training samples from a trained network. This header is the manual of the C API; docs/C.md has a
whole program, and scrubjay.hpp, beside this file, is the same for C++17.

Status. Every function returns one: SJ_OK (0), or one of the codes below, which never change their meaning. The message of
a failure is read by sj_last_error. A function that fails writes nothing to its results, except that a place for a new
handle becomes NULL.

Handles. An object of the library is known by a handle (sj_device *, sj_model *, ..). A handle is a number in the form of a
pointer: pass it on, never follow it. It ends with the free function of its kind, which takes NULL too. A handle that was
freed, is of another kind, or never was one is found and answered with SJ_ERR_HANDLE: numbers are never used again. Objects
are shared: a request keeps its session, a session its device, a curvature its samples. So handles may be freed in any
order, also while another thread uses the object, which lives until its last user ends.

Threads. Every function may be called in every thread at any time, also with the same handles: objects do not change once
they are made, except that a session can be cancelled. Calls on one device share its threads. Two runs into one folder at
the same time are the exception: do not start them.

Texts are UTF-8 and end with a 0. Texts that the library gives live as long as the handle they were asked of, or for ever
where there is none. Texts and arrays that you pass are read before the call returns and not kept.

Pointers. A pointer may be NULL only where its description says so; otherwise SJ_ERR_NULL. A pointer that is not aligned for
its type is SJ_ERR_ARGUMENT. That the memory behind a pointer is there, and as long as you say, cannot be checked.

Structs. Options and results begin with struct_size, so that a program and a library of different versions understand each
other. Options: call the init function, which fills in the defaults, then set what you want; NULL stands for all defaults.
What a smaller struct of an older header lacks has its default; a larger one of a newer header must have 0 beyond what this
library knows, else SJ_ERR_ARGUMENT. Results: set struct_size to sizeof before the call
(sj_model_info info = {.struct_size = sizeof info};).
New fields come at the end. Options that are names are texts, such as "ggn"; NULL is the default, and an unknown name is
answered with those that there are.

The host program. The library installs no signal handler, logger, panic hook or exit handler, reads no environment variable
of its own, leaves the global thread pool alone, and writes nothing to standard output. A defect that ends in a Rust panic is
caught and becomes SJ_ERR_PANIC (Rust prints its message on standard error); objects stay usable. Running out of memory ends
the program; the sizes of what is asked for are checked first. After a fork, handles of the parent are unknown in the child
(SJ_ERR_HANDLE), which may open its own. Two copies of the library in one program do not know each other's handles. Once used,
the library stays loaded: its threads may still run when dlclose returns, so do not call that.

Devices. Tensors may be in host memory or on a CUDA GPU (see Tensors), with any device of the library's, which moves them itself.
Every call returns when its results are there, so that no one else synchronises.
*/
#ifndef SCRUBJAY_H
#define SCRUBJAY_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#define SJ_API
#else
#define SJ_API __attribute__((visibility("default")))
#endif

/* The version of this header: 10000 a major, 100 a minor version; and of the binary interface, which is in the SONAME. */
#define SJ_VERSION 100
#define SJ_ABI 0

enum {
    SJ_OK = 0,
    SJ_ERR_SHAPE = 1,              /* shapes do not fit each other */
    SJ_ERR_DEVICE = 2,             /* the device or its driver failed */
    SJ_ERR_NO_GPU = 3,             /* a GPU was asked for and none can be used */
    SJ_ERR_CHECKPOINT = 4,         /* the files of a model cannot be read as one */
    SJ_ERR_DATA = 5,               /* data cannot be read as samples */
    SJ_ERR_SOLVE = 6,              /* a linear solve failed */
    SJ_ERR_NEGATIVE_CURVATURE = 7, /* the curvature is negative and the rule forbids to go on */
    SJ_ERR_CONFIG = 8,             /* options contradict each other, the model or the data; the message names them as the command
                                      line does: --batch is the field batch, --val the field validation */
    SJ_ERR_IO = 9,                 /* the system refused a file operation */
    SJ_ERR_INTERRUPTED = 10,       /* a run was cancelled; the model is as it was */
    SJ_ERR_MEMORY = 11,            /* not enough memory for what was asked */
    SJ_ERR_NULL = 100,             /* a pointer that may not be NULL is NULL */
    SJ_ERR_HANDLE = 101,           /* no live handle of this kind */
    SJ_ERR_ARGUMENT = 102,         /* a size, shape, stride, type, text or alignment that means nothing */
    SJ_ERR_PANIC = 103,            /* a defect of the library; please report it */
    SJ_ERR_UNSUPPORTED = 104,      /* what this library cannot do, as data of ROCm */
    SJ_ERR_BUFFER = 105            /* a buffer of yours is too small */
};

typedef struct sj_device sj_device;
typedef struct sj_model sj_model;
typedef struct sj_samples sj_samples;
typedef struct sj_trace sj_trace;
typedef struct sj_block sj_block;
typedef struct sj_curvature sj_curvature;
typedef struct sj_session sj_session;
typedef struct sj_request sj_request;
typedef struct sj_outcome sj_outcome;
typedef struct sj_verification sj_verification;
typedef struct sj_table sj_table;
typedef struct sj_graph sj_graph;
struct DLManagedTensorVersioned; /* of dlpack.h, which is not needed here */

/* ---- The library ---------------------------------------------------------------------------------------------------- */

/* The versions of the library that runs, and its version in words. Each pointer may be NULL. */
SJ_API int32_t sj_version(uint32_t *abi, uint32_t *version, const char **text);

/* The name of a status, as "SJ_ERR_SHAPE". The text lives for ever. SJ_ERR_ARGUMENT where there is no such status. */
SJ_API int32_t sj_status_name(int32_t status, const char **name);

/* The message of the last failed call in this thread; with a handle of any kind, of the last failed call in this thread that
   was given this handle, also a freed one (the 256 newest handles are remembered). Empty where none failed. A call that succeeds
   does not erase it. At most `size` bytes are written to `text`, with a 0 at the end; `needed`, which may be NULL, gets the
   size of the whole. With size 0, `text` may be NULL. Does not change the last message itself. */
SJ_API int32_t sj_last_error(const void *handle, char *text, size_t size, size_t *needed);

/* ---- Devices -------------------------------------------------------------------------------------------------------- */

typedef struct sj_device_info {
    size_t struct_size;
    const char *name; /* "cpu" or "cuda" */
    const char *why;  /* why it was chosen, or which GPU it is */
    uint64_t threads; /* of the host side */
} sj_device_info;

/* Opens a device: "auto" (or NULL; a usable GPU, else the CPU), "cpu" or "cuda", with this many threads of its own; 0 is one a
   core, and 4096 the most. A GPU that cannot be used is SJ_ERR_NO_GPU with the reason. Free it with sj_device_free. */
SJ_API int32_t sj_device_open(const char *name, uint64_t threads, sj_device **device);
SJ_API int32_t sj_device_get_info(const sj_device *device, sj_device_info *info);
SJ_API int32_t sj_device_free(sj_device *device); /* NULL is left alone */

/* The devices of the machine as JSON, that of `scrubjay devices --json`: threads, GPUs, and why one cannot be used. Writes all of it
   with a 0 at the end; `needed`, which may be NULL, gets the size. With size 0, `json` may be NULL; a size too small is
   SJ_ERR_BUFFER. */
SJ_API int32_t sj_devices(char *json, size_t size, size_t *needed);

/* ---- Tensors -------------------------------------------------------------------------------------------------------- */

enum { SJ_F32 = 0, SJ_F64 = 1, SJ_F16 = 2, SJ_BF16 = 3, SJ_I32 = 4, SJ_I64 = 5, SJ_U32 = 6, SJ_U8 = 7 };
enum { SJ_CPU = 0, SJ_CUDA = 1 };

/* Values where they lie: an element (i, j, ..) is at data + i * strides[0] + j * strides[1] + .., counted in elements. As an
   argument it is yours, and is read or written during the call only. A tensor that takes results has f32 or f64 elements,
   each with a place of its own. Values are copied where the library keeps them, and nowhere else. */
typedef struct sj_tensor {
    void *data;             /* the first element, aligned for its type; may be NULL where there are no elements */
    int32_t dtype;          /* SJ_F32 .. */
    int32_t device;         /* SJ_CPU or SJ_CUDA */
    int32_t device_index;   /* 0 on the CPU; the number of the GPU among those that the driver shows */
    int32_t ndim;           /* 0 to 8 */
    const int64_t *shape;   /* [ndim], none below 0 */
    const int64_t *strides; /* [ndim] in elements, none below 0; NULL is row-major */
    void *stream;           /* NULL on the CPU; the CUstream on which values are ready, or are wanted */
} sj_tensor;

/* Tensors on a GPU (SJ_CUDA) are taken by every function, with any device of the library's. They are copied to the host, and
   results from there, on the tensor's stream, behind the work that is on it; NULL is the legacy default stream. The library
   synchronises: it waits for its copies, so that results are there when the call returns, and what was put on the stream
   before needs no wait of yours. The stream is one of the GPU's primary context (that of the CUDA runtime, and of PyTorch), which
   is current during the copy; then the thread's own context is again. Without a driver SJ_ERR_NO_GPU; SJ_ERR_CONFIG where the
   driver does not know the address as one of that GPU, or its allocation there is too small; SJ_ERR_DEVICE where it fails. */

/* A view of a DLPack tensor of version 1.x in the memory of the host or of a CUDA GPU, without a copy; with writable = 1 one that
   is marked read-only is refused. The DLPack tensor stays yours: keep it while the view is used, and call its deleter yourself.
   DLPack has no place for a stream: set view.stream to the one that you agreed on with who made the tensor (NULL, the default
   one, is what it is at first). Other devices and versions are SJ_ERR_UNSUPPORTED. */
SJ_API int32_t sj_tensor_from_dlpack(const struct DLManagedTensorVersioned *dlpack, int32_t writable, sj_tensor *tensor);

/* ---- Models --------------------------------------------------------------------------------------------------------- */

typedef struct sj_model_options {
    size_t struct_size;
    const char *arch;           /* the family or architecture, where neither config nor tensors tell; NULL: they do */
    uint64_t heads;             /* attention heads of a ViT; 0: as its config says */
    const char *stem;           /* how a ResNet begins: "stride1", "stride1+pool", "stride2", "stride2+pool"; NULL: by its
                                   first filter */
    const char *const *ignore;  /* patterns of tensors that play no part, as "aux.*"; they are written unchanged */
    uint64_t ignore_count;
    uint64_t channels, height, width; /* of an image, where the model takes several; all 0: as the config or the tensors say */
    uint64_t tokens;                  /* of a text, likewise */
    const char *const *weights;       /* keys of the weights in PyTorch files that have several: the first that a file has */
    uint64_t weights_count;
} sj_model_options;

typedef struct sj_model_info {
    size_t struct_size;
    const char *family;
    uint64_t channels, height, width; /* of an image; features are channels of 1 by 1; 0 of a model of texts */
    uint64_t classes;                 /* logits */
    uint64_t label_width;             /* numbers of label per sample: 1, or one per label */
    uint64_t layers;                  /* with units: linear and convolution */
    uint64_t units;                   /* rows of their weights, numbered through all layers */
    uint64_t parameters;              /* of the whole model */
    uint64_t assumed;                 /* facts that nothing tells and that were assumed: sj_model_get_assumed */
    uint64_t files;                   /* files of the model; 0 where it has none */
    uint64_t tokens;                  /* of a text; 0 of a model of images */
} sj_model_info;

typedef struct sj_layer_info {
    size_t struct_size;
    const char *name;         /* the module's name in PyTorch */
    uint64_t units;           /* how many */
    uint64_t first_unit;      /* the number of the first */
    uint64_t unit_parameters; /* of one unit: its weight row, and its bias if it has one */
    uint64_t has_bias;        /* 0 or 1 */
} sj_layer_info;

typedef struct sj_saved {
    size_t struct_size;
    uint64_t changed; /* stored values that differ from the input's */
    uint64_t lost;    /* changes too small for the type they are stored in */
} sj_saved;

SJ_API int32_t sj_model_options_init(sj_model_options *options, size_t struct_size);

/* Reads a model: a .safetensors file, one of torch.save's, a .onnx file, or a directory with such a file (or shards) and
   config.json; or by name, as "hf:ORG/NAME" (docs/MODELS.md). `options` may be NULL. Free it with sj_model_free. */
SJ_API int32_t sj_model_open(const char *path, const sj_model_options *options, sj_model **model);

/* The same of the bytes of a .safetensors file, which are copied, and the text of its config, which may be NULL. `file_name`
   is the file that sj_model_save writes; NULL is "model.safetensors". `options` may be NULL. */
SJ_API int32_t sj_model_from_memory(const void *bytes, size_t size, const char *config, const char *file_name,
                                    const sj_model_options *options, sj_model **model);

SJ_API int32_t sj_model_get_info(const sj_model *model, sj_model_info *info);

/* Layer `number` from 0. */
SJ_API int32_t sj_model_get_layer(const sj_model *model, uint64_t number, sj_layer_info *info);

/* The number of the unit that is row `row` of the layer of this name; SJ_ERR_CONFIG where there is none. */
SJ_API int32_t sj_model_find_unit(const sj_model *model, const char *layer, uint64_t row, uint32_t *unit);

/* Fact `number` from 0 that was assumed of the model. */
SJ_API int32_t sj_model_get_assumed(const sj_model *model, uint64_t number, const char **text);

/* What is known of the model, as `scrubjay inspect` tells it: what was read off tensors and config and what was assumed, layers, units,
   bytes that a scrub needs. `json` also has the program of Hessian products; with a `precision` ("f32", "tf32", "bf16", "f16") that of
   the pass over noisy copies, whose bytes are then for it; NULL: f32. `json` and `text` may each be NULL. The texts live as long as
   the handle. */
SJ_API int32_t sj_model_get_inspection(const sj_model *model, const char *precision, const char **json, const char **text);

/* Writes the model to a folder (made if need be) in the layout it was read in: copies of its files in which only the values
   that were changed since are patched, each in the type it is stored in, and its config beside them. Each file appears whole
   or not at all. The folder that the model was read from is refused. `saved` may be NULL. */
SJ_API int32_t sj_model_save(const sj_model *model, const char *folder, sj_saved *saved);

/* The bytes that sj_model_save would write to the model's file `file` (from 0). `needed`, which may be NULL, gets their number;
   with size 0, `bytes` may be NULL and nothing else is written; a size too small is SJ_ERR_BUFFER. */
SJ_API int32_t sj_model_get_bytes(const sj_model *model, uint64_t file, void *bytes, size_t size, size_t *needed);
SJ_API int32_t sj_model_free(sj_model *model); /* NULL is left alone */

/* Writes the model at `path` to a folder as model.safetensors (f32) and a config.json that lists its network node by node
   (docs/GRAPH.md). The folder is made if need be, and must have neither file. `options` may be NULL. */
SJ_API int32_t sj_export(const char *path, const sj_model_options *options, const char *folder);

/* ---- Samples -------------------------------------------------------------------------------------------------------- */

typedef struct sj_data_options {
    size_t struct_size;
    const float *mean; /* subtracted from values from 0 to 1, per channel; NULL: as the model's config says */
    uint64_t mean_count;
    const float *std;  /* to divide by */
    uint64_t std_count;
    const char *cifar_labels; /* of CIFAR-100: "fine" (or NULL) or "coarse" */
    const char *resize;        /* of pictures, in place of what the model's config says: the shorter side "256", "224x192", "none" */
    const char *crop;          /* likewise: "224", "224x192", "none" */
    const char *interpolation; /* of resize: "nearest", "box", "bilinear", "hamming", "bicubic", "lanczos" */
    uint64_t skip_corrupt;     /* 1: pictures that cannot be read are left out; a note says how many */
    const char *tokenizer;     /* of texts: the folder or file of one, in place of the one beside the model */
    uint64_t max_tokens;       /* of texts: the most tokens of one that are kept, where it is fewer than the model takes */
    const char *text_column;   /* of tables of text: the column of texts, where it has no usual name */
    const char *label_columns; /* of tables: the column of labels, or several of 0 and 1 with commas between them */
} sj_data_options;

typedef struct sj_samples_info {
    size_t struct_size;
    uint64_t count;
    uint64_t channels, height, width; /* of an image; 0 of texts */
    uint64_t label_width;             /* 1, or the number of labels */
    uint64_t notes;                   /* sj_samples_get_note */
    uint64_t tokens;                  /* of a text; 0 of images */
} sj_samples_info;

SJ_API int32_t sj_data_options_init(sj_data_options *options, size_t struct_size);

/* Copies samples: x [n, c, h, w] or [n, features] of floats, normalised as the model expects; y [n] or [n, 1] of classes or
   [n, labels] of 0 and 1, of whole numbers. NaN and infinity are refused (SJ_ERR_CONFIG; the message names the sample). */
SJ_API int32_t sj_samples_new(const sj_tensor *x, const sj_tensor *y, sj_samples **samples);

/* Copies texts: token ids [n, t] of whole numbers; their mask [n, t], 1 where a token is attended, else 0, or NULL where all are;
   y as above. */
SJ_API int32_t sj_samples_from_text(const sj_tensor *ids, const sj_tensor *mask, const sj_tensor *y, sj_samples **samples);

/* Makes samples of `count` texts, by the tokenizer beside the model's files or the one that `options` names (which may be NULL, and of
   which tokenizer and max_tokens play a part); y as above. They are padded to the tokens that `model` was opened for
   (sj_model_options.tokens), and cut there; what was cut is told by the notes. SJ_ERR_DATA where there is no tokenizer. */
SJ_API int32_t sj_samples_from_strings(const sj_model *model, const char *const *texts, uint64_t count, const sj_tensor *y,
                                       const sj_data_options *options, sj_samples **samples);

/* Reads samples from files (docs/DATA.md). `model` may be NULL; else values from 0 to 1 are normalised as its config says.
   `options` may be NULL. */
SJ_API int32_t sj_samples_load(const char *path, const sj_model *model, const sj_data_options *options, sj_samples **samples);
SJ_API int32_t sj_samples_get_info(const sj_samples *samples, sj_samples_info *info);

/* Sentence `number` from 0 about how a file was read, where it could have been read otherwise. */
SJ_API int32_t sj_samples_get_note(const sj_samples *samples, uint64_t number, const char **text);

/* What the set holds, as `scrubjay inspect --data` tells it: number, shape, steps and normalisation, classes with their names and
   counts. `json` and `text` may each be NULL. The texts live as long as the handle. */
SJ_API int32_t sj_samples_get_inspection(const sj_samples *samples, const char **json, const char **text);

/* Writes image `number` from 0, as it is before mean and std, as a PNG file. SJ_ERR_CONFIG where the samples are texts. */
SJ_API int32_t sj_samples_write_image(const sj_samples *samples, uint64_t number, const char *path);

/* Views of the inputs, f32 [n, c, h, w] with strides, or of texts u32 [n, 2, t], ids and then mask; and of the labels, u32 [n]
   or [n, labels]. Each pointer may be NULL.
   Read them only; they live as long as the handle. */
SJ_API int32_t sj_samples_get_tensors(const sj_samples *samples, sj_tensor *x, sj_tensor *y);

/* The inputs as a read-only DLPack tensor, without a copy. It is yours: call its deleter once. It outlives the handle. */
SJ_API int32_t sj_samples_to_dlpack(const sj_samples *samples, struct DLManagedTensorVersioned **dlpack);
SJ_API int32_t sj_samples_free(sj_samples *samples); /* NULL is left alone */

/* ---- Forward passes and traces -------------------------------------------------------------------------------------- */

/* logits [n, classes] = the model of x [n, c, h, w] or [n, features], read where it lies. NaN and infinity in x are refused. For
   models of images; sj_observe gives the logits of texts. */
SJ_API int32_t sj_forward(const sj_device *device, const sj_model *model, const sj_tensor *x, const sj_tensor *logits);

typedef struct sj_scores {
    size_t struct_size;
    uint64_t samples;
    uint64_t correct; /* samples whose labels are all predicted right */
    double accuracy;  /* their share */
    double loss;      /* the mean */
} sj_scores;

/* Of one class; where samples have several labels, of one label. */
typedef struct sj_class_score {
    uint64_t correct, samples;
} sj_class_score;

/* Accuracy and loss of the model on samples, as `scrubjay eval`. `classes` gets one element for each class and has `size` places; it may
   be NULL with size 0. */
SJ_API int32_t sj_evaluate(const sj_device *device, const sj_model *model, const sj_samples *samples, sj_scores *scores,
                           sj_class_score *classes, uint64_t size);

typedef struct sj_observe_options {
    size_t struct_size;
    uint64_t copies;       /* noisy copies to observe; 0 (the default): the samples themselves */
    double sigma;          /* of images: deviation of their noise, in units of the normalised input; NaN: 0.1 */
    uint64_t replace;      /* of texts: tokens that are replaced at random; 0: one */
    uint64_t seed;         /* of what is random */
    const char *precision; /* of passes over copies: "f32" (or NULL), on CUDA also "tf32", "bf16", "f16" */
} sj_observe_options;

enum { SJ_TRACE_ACTIVATIONS = 0, SJ_TRACE_LOSSES = 1, SJ_TRACE_LOGITS = 2 };

SJ_API int32_t sj_observe_options_init(sj_observe_options *options, size_t struct_size);

/* Runs the model over samples and keeps the activation of every unit [m, units], the losses [m] and the logits [m, classes].
   With copies, all samples are one request: m noisy copies of it, means over the request, and no logits ([m, 0]). `options`
   may be NULL. Free the trace with sj_trace_free. */
SJ_API int32_t sj_observe(const sj_device *device, const sj_model *model, const sj_samples *samples,
                          const sj_observe_options *options, sj_trace **trace);

/* A view of a part, f32, without a copy: read it only; it lives as long as the handle. */
SJ_API int32_t sj_trace_get_tensor(const sj_trace *trace, int32_t part, sj_tensor *tensor);

/* The same as a read-only DLPack tensor. It is yours: call its deleter once. It outlives the handle. */
SJ_API int32_t sj_trace_to_dlpack(const sj_trace *trace, int32_t part, struct DLManagedTensorVersioned **dlpack);
SJ_API int32_t sj_trace_free(sj_trace *trace); /* NULL is left alone */

/* ---- Blocks of units, gradients, curvature, solves ------------------------------------------------------------------ */

/* The block of these units, by number, in this order; (NULL, 0) is every unit. Its p parameters are, for each unit, its weight
   row as PyTorch flattens it, then its bias. Keeps the model. Free it with sj_block_free. */
SJ_API int32_t sj_block_new(const sj_model *model, const uint32_t *units, uint64_t count, sj_block **block);
SJ_API int32_t sj_block_get_size(const sj_block *block, uint64_t *parameters);

/* values [p] */
SJ_API int32_t sj_block_get_values(const sj_block *block, const sj_tensor *values);

/* gradient [p] of the mean loss over the samples, without weight decay. */
SJ_API int32_t sj_block_get_gradient(const sj_device *device, const sj_block *block, const sj_samples *samples,
                                     const sj_tensor *gradient);
SJ_API int32_t sj_block_free(sj_block *block); /* NULL is left alone */

typedef struct sj_curvature_options {
    size_t struct_size;
    const char *kind; /* "hessian" (or NULL), "ggn" or "fisher" */
    uint64_t memory;  /* bytes that may be kept between products; 4 GiB. The results do not depend on it */
} sj_curvature_options;

typedef struct sj_solve_options {
    size_t struct_size;
    const char *solver;   /* "minres" (or NULL), or "cg" */
    const char *negative; /* of cg, where the curvature is negative: "refuse" (or NULL), "raise" the damping, "truncate" */
    double damping;       /* lambda; 0 */
    double tolerance;     /* relative residual to reach; 1e-5 */
    uint64_t products;    /* at most; 0: ten per parameter and 100 more */
} sj_solve_options;

typedef struct sj_solve_report {
    size_t struct_size;
    double damping;            /* that was used in the end */
    uint64_t products;         /* spent */
    double residual;           /* |b - (H + lambda I) x| / |b|, computed at the end */
    uint64_t converged;        /* 0 or 1: the residual is within the tolerance */
    double negative_curvature; /* the most negative that was met; 0 where none was */
    uint64_t raised;           /* how often the damping was raised */
} sj_solve_report;

SJ_API int32_t sj_curvature_options_init(sj_curvature_options *options, size_t struct_size);
SJ_API int32_t sj_solve_options_init(sj_solve_options *options, size_t struct_size);

/* The curvature of the mean loss over samples, on a block: runs the samples once and keeps what products need. Keeps device,
   block and samples. `options` may be NULL. Free it with sj_curvature_free. */
SJ_API int32_t sj_curvature_new(const sj_device *device, const sj_block *block, const sj_samples *samples,
                                const sj_curvature_options *options, sj_curvature **curvature);

/* gradient [p] over the same samples. */
SJ_API int32_t sj_curvature_get_gradient(const sj_curvature *curvature, const sj_tensor *gradient);

/* hv [p] = H v [p], without damping or weight decay. A v of f64 is scaled so that it keeps its precision in f32. */
SJ_API int32_t sj_curvature_product(const sj_curvature *curvature, const sj_tensor *v, const sj_tensor *hv);

/* x [p] = (H + lambda I)^-1 b [p]. A NULL b is the gradient. A solve that spends its products is no failure: the report says how
   far it came. `options` and `report` may be NULL. */
SJ_API int32_t sj_curvature_solve(const sj_curvature *curvature, const sj_tensor *b, const sj_tensor *x,
                                  const sj_solve_options *options, sj_solve_report *report);
SJ_API int32_t sj_curvature_free(sj_curvature *curvature); /* NULL is left alone */

/* ---- Sessions ------------------------------------------------------------------------------------------------------- */

typedef struct sj_progress {
    uint64_t done;     /* batches; of a training epochs, of a graph columns, of a verification models */
    uint64_t batches;  /* of how many */
    const char *phase; /* of the running batch, that has just ended: "select", "evaluate", "curvature", "solve", "length",
                          "audit", "proxy", "hold"; NULL between batches. Lives until the callback returns */
} sj_progress;

/* Functions of yours. They are called in the thread that called the library, while that call runs; with runs in several
   threads, in each of these. They may call the library, with any handle. They must return: no exception and no longjmp may
   leave them. */
typedef struct sj_callbacks {
    size_t struct_size;
    /* When a run begins, after every phase, and after every batch. Anything but 0 cancels, as sj_session_cancel. May be NULL. */
    int32_t (*progress)(const sj_progress *progress, void *user);
    /* With messages: level 1 is a warning, 0 is not. The text lives until it returns. May be NULL. */
    void (*log)(int32_t level, const char *message, void *user);
    /* Is passed back. The session keeps it: it must be usable until the session and its requests are freed and no run is left. */
    void *user;
} sj_callbacks;

/* The files of a session; NULL or 0 where nothing is given. */
typedef struct sj_files {
    size_t struct_size;
    const char *model;       /* as for sj_model_open; needed */
    const char *data;        /* the training data, or the part of it that you have; needed */
    const char *validation;  /* what the model has not seen: calibration, and the gate */
    const char *forget_data; /* a set to remove that is not among the data: sj_request_beside */
    const char *earlier;     /* the model of an earlier epoch, for the curvature "fd" */
    const char *arch;        /* these four as in sj_model_options */
    uint64_t heads;
    const char *stem;
    const char *const *ignore;
    uint64_t ignore_count;
    const float *mean; /* these as in sj_data_options */
    uint64_t mean_count;
    const float *std;
    uint64_t std_count;
    const char *cifar_labels;
    const char *proxy;          /* a model that has not seen the samples to remove, for the method "hold" */
    const char *const *weights; /* keys of the weights in PyTorch files that have several: the first that a file has */
    uint64_t weights_count;
    const char *tokenizer;     /* of texts: the folder or file of one, in place of the one beside the model */
    uint64_t max_tokens;       /* of texts: the most tokens of one that are kept, where it is fewer than the model takes */
    const char *text_column;   /* of tables of text: the column of texts, where it has no usual name */
    const char *label_columns; /* of tables: the column of labels, or several of 0 and 1 with commas between them */
    const char *resize;        /* these four as in sj_data_options */
    const char *crop;
    const char *interpolation;
    uint64_t skip_corrupt;
    uint64_t inputs_memory; /* the most memory for the inputs of a set, in MiB; those of a larger one are read again when they are
                               used; 0: 4096 */
    uint64_t no_thumbnails; /* 1: pages leave the samples out, as in sj_session_options */
} sj_files;

/* What else a session in memory has. */
typedef struct sj_session_options {
    size_t struct_size;
    const sj_model *earlier; /* the model of an earlier epoch, for the curvature "fd"; NULL: none */
    const sj_model *proxy;   /* a model that has not seen the samples to remove, for the proxy "given" of a hold; NULL: none */
    uint64_t no_thumbnails;  /* 1: pages leave the samples out: their small pictures or first words, and the model's answers */
} sj_session_options;

typedef struct sj_session_info {
    size_t struct_size;
    uint64_t samples;    /* training samples, the set beside them included */
    uint64_t beside;     /* of these, the set beside the data */
    uint64_t validation; /* validation samples */
    uint64_t notes;      /* messages about how files were read, which went to the log callback */
    uint64_t cancelled;  /* 0 or 1 */
} sj_session_info;

SJ_API int32_t sj_callbacks_init(sj_callbacks *callbacks, size_t struct_size);
SJ_API int32_t sj_files_init(sj_files *files, size_t struct_size);
SJ_API int32_t sj_session_options_init(sj_session_options *options, size_t struct_size);

/* Opens the files of a session: what sj_request_run writes then is what `scrubjay scrub` writes. `callbacks` may be NULL. Free
   it with sj_session_free. */
SJ_API int32_t sj_session_open(const sj_device *device, const sj_files *files, const sj_callbacks *callbacks,
                               sj_session **session);

/* A session of values in memory: for sj_request_scrub. `validation`, `options` and `callbacks` may be NULL. Keeps the objects. */
SJ_API int32_t sj_session_new(const sj_device *device, const sj_model *model, const sj_samples *samples,
                              const sj_samples *validation, const sj_session_options *options,
                              const sj_callbacks *callbacks, sj_session **session);
SJ_API int32_t sj_session_get_info(const sj_session *session, sj_session_info *info);

/* A new handle of the model as it is before any request. */
SJ_API int32_t sj_session_get_model(const sj_session *session, sj_model **model);

/* Ends the runs of the session after the stage that runs, or the next one, with SJ_ERR_INTERRUPTED, and refuses new ones
   likewise, until sj_session_uncancel. The model is as it was; in a folder, the batches that were done are kept, and the same run goes on
   from there. May be called in any thread, also in a callback. */
SJ_API int32_t sj_session_cancel(sj_session *session);
SJ_API int32_t sj_session_uncancel(sj_session *session);
SJ_API int32_t sj_session_free(sj_session *session); /* NULL is left alone; runs go on */

/* ---- Training ------------------------------------------------------------------------------------------------------- */

/* As the options of `scrubjay train`, which explains them. What is not given is NULL, 0, or NaN where 0 has a meaning. */
typedef struct sj_train_options {
    size_t struct_size;
    const char *exclude;             /* samples to leave out, in words as for sj_request_select; */
    const uint64_t *exclude_indices; /* or by index */
    uint64_t exclude_count;
    uint64_t epochs;                 /* passes over the data; 20 */
    uint64_t batch_size;             /* samples of a mini-batch; 64 */
    double lr;                       /* the initial learning rate; 0.05 */
    double momentum;                 /* of SGD; 0.9 */
    const char *optimizer;           /* "sgd" (default), "adam" */
    double weight_decay;             /* 5e-4 */
    const char *decay;               /* the parameters that it is on: "all" (default), "weights" */
    const char *schedule;            /* of the learning rate: "cosine" (default), "constant", "step" */
    uint64_t warm_up;                /* epochs in which it rises; 0 */
    uint64_t shift;                  /* pixels by which images are shifted at random, at most; 0 */
    uint64_t flip;                   /* 1: half of the images are mirrored, at random */
    double label_smoothing;          /* of a new model's loss; NaN: none */
    uint64_t classes;                /* of a new model; 0: one more than the largest label */
    uint64_t seed;                   /* of the initial weights and of the order of samples; 0 */
    const uint64_t *keep_epochs;     /* of sj_train_run: epochs after which the model is also kept, in epoch-E of the folder */
    uint64_t keep_count;
} sj_train_options;

/* One pass over the data. Losses are means, accuracies shares from 0 to 1. */
typedef struct sj_epoch {
    uint64_t epoch;                               /* from 1 */
    double loss, accuracy;                        /* over its batches, each before its step */
    double validation_loss, validation_accuracy;  /* after it; NaN without validation samples */
    double seconds;                               /* since the training began */
} sj_epoch;

SJ_API int32_t sj_train_options_init(sj_train_options *options, size_t struct_size);

/* Trains in memory: a new model of the description `arch`, as "mlp:100" or "resnet20" (docs/MODELS.md), with `model` NULL; or `model`,
   which stays as it is, with `arch` NULL. `validation`, `options` and `callbacks` may be NULL. Progress is told after every epoch (done
   of batches), and can cancel: SJ_ERR_INTERRUPTED, and there is no model. `epochs` gets an element for every epoch and has `size` places;
   it may be NULL with size 0. A new model has the bytes of `scrubjay train` with the same options, and is saved as
   model.safetensors and config.json; one that exists is saved in its own layout. Free it with sj_model_free. */
SJ_API int32_t sj_train(const sj_device *device, const char *arch, const sj_model *model, const sj_samples *samples,
                        const sj_samples *validation, const sj_train_options *options, const sj_callbacks *callbacks,
                        sj_epoch *epochs, uint64_t size, sj_model **trained);

/* Trains from files into a folder, which is made if need be, and writes what `scrubjay train` writes: model.safetensors, config.json,
   train.json, and the tokenizer of texts. A training that was stopped there goes on, one that is finished is kept, and any other is
   refused. `files` names the data, the validation data, how they are read, and the model; or, with files.model NULL, files.arch
   describes a new one. What else a removal has must be NULL in it. Messages are about how files were read; the others as above. */
SJ_API int32_t sj_train_run(const sj_device *device, const sj_files *files, const sj_train_options *options,
                            const sj_callbacks *callbacks, const char *folder, sj_epoch *epochs, uint64_t size);

/* ---- Requests ------------------------------------------------------------------------------------------------------- */

/* As the options of `scrubjay scrub`, which explains them. What is not given is NULL, 0, or NaN where 0 has a meaning. */
typedef struct sj_scrub_options {
    size_t struct_size;
    const char *retain;             /* the retained samples that are used, as "0-999"; default: 1,024 of the rest at random */
    const uint64_t *retain_indices; /* the same by index, instead */
    uint64_t retain_count;
    uint64_t n;                     /* samples the model was trained on; default: those in `data` */
    uint64_t batch;                 /* samples removed together; default all at once in a hold, else 25, a class at once */
    const char *selection;          /* "vote" (default, of one linear layer with l2 "full"), "foci", "cheap", "gradient", "output", "random", "full", "one" */
    uint64_t perturbations;         /* noisy copies per trace; default 1000, and 200 for each sample of a vote */
    double sigma;                   /* of images: deviation of their noise; NaN: 0.1 */
    uint64_t replace;               /* of texts: tokens of each that are replaced; 0: one */
    const char *precision;          /* of the passes over them: "f32" (default), on CUDA "tf32", "bf16", "f16" */
    uint64_t max_units;             /* at most; default: a share */
    const char *curvature;          /* "ggn" (default), "hessian", "fisher", "kfac", "fd" */
    uint64_t precondition;          /* 1: the solve is preconditioned by K-FAC */
    double damping;                 /* NaN: by the largest eigenvalue */
    double l2;                      /* the weight decay that the model was trained with; 0 */
    const char *update;             /* "newton" (default), "cr", "gradient" */
    const char *length;             /* "calibrated" (default), "one" */
    double target_loss;             /* of the forgotten; NaN: what unseen samples have */
    uint64_t wrong_labels;          /* 1: the samples carry wrong labels */
    uint64_t stages;                /* default: 2 to 16, by the rise of the loss */
    uint64_t iterations;            /* Newton steps; 0: one, and for one linear layer with l2 as many as it takes */
    double tolerance;               /* relative residual of the solve; 0.01 */
    uint64_t products;              /* of the solve, at most; default 25, of one linear layer with l2 500 */
    double gate;                    /* the largest drop of validation or retained accuracy, as a share; 0.05 */
    const char *if_empty;           /* where no unit depends on a batch: "refuse" (default), "cheap" */
    double epsilon;                 /* of a certificate for each batch, with delta; NaN: none */
    double delta;
    const char *noise;              /* the units that get its noise: "outside" (default), "inside", "all", "none" */
    uint64_t seed;                  /* of everything random; 0 */
    const char *method;             /* "hold", which needs validation data and of all above reads retain, n, batch, l2, wrong_labels,
                                       gate and seed; "lcodec". Default: hold with validation data, unless an option above
                                       that it does not read is given, the model has several labels, or it is one linear layer
                                       with l2 */
    const char *proxy;              /* what tells a hold what a model without the samples would answer: "trained" (default),
                                       "neighbours", or "given": the proxy of sj_files or sj_session_options */
    uint64_t proxy_epochs;          /* passes over the retained samples that train it; 4 */
    uint64_t hold_epochs;           /* passes over them of the hold; 4 */
    double block;                   /* the share of the units that a hold moves, and nothing else; NaN: every parameter */
    const char *despite;            /* what shall not refuse the request, separated by commas: "no-val", "near-chance" */
    const char *delta_file;         /* sj_request_run writes delta.safetensors too: "new" values, or "both"; NULL: none */
    double budget;                  /* the most that a hold may cost, in epochs of retraining; NaN: what it costs */
    const char *rounding;           /* of new values, where the model's files are bf16 or f16: "nearest" (default), "stochastic" */
} sj_scrub_options;

typedef struct sj_request_info {
    size_t struct_size;
    uint64_t forget;     /* samples to remove */
    uint64_t retained;   /* retained samples that are used */
    uint64_t held_out;   /* retained samples that calibration holds out */
    uint64_t trained_on; /* samples the model was trained on */
    uint64_t batch;      /* samples removed together */
    uint64_t batches;
    uint64_t warnings;   /* which went to the log callback, and are notes of the report */
} sj_request_info;

typedef struct sj_estimate {
    size_t struct_size;
    uint64_t units, units_at_most; /* of the model; that a batch takes */
    uint64_t copies_per_batch;
    uint64_t observe_bytes, products_bytes, kept_bytes; /* of a trace; of a product, each worker; kept between products */
    uint64_t stages_at_most, products_at_most;
    double seconds_at_most; /* without the selection's statistics */
    uint64_t proxy_epochs, hold_epochs; /* passes over the retained samples, of a hold */
    double cost_in_epochs;              /* of retraining, that these take with the forgotten samples beside; 0 without a hold */
    uint64_t memory_bytes, memory_in_use; /* of the host, at most; of these, what the session's models and samples take already */
    uint64_t memory_free;                 /* what the machine has left; 0 where it does not tell */
    double kept_share;                    /* of what products read again, the share that is kept; 1 where there are none */
} sj_estimate;

SJ_API int32_t sj_scrub_options_init(sj_scrub_options *options, size_t struct_size);

/* A request in words: "7,12,100-149" (both ends included), "class:spam" or "class:3", "path:s7/x*.png", "where:site=berlin",
   "level:1=s7", "n:20@seed", joined by commas, or the name of a file of such lines where the session has files. Everything is checked before anything expensive runs. Keeps the session. `options` may be NULL. Free it
   with sj_request_free. */
SJ_API int32_t sj_request_select(const sj_session *session, const char *samples, const sj_scrub_options *options,
                                 sj_request **request);

/* A request by index, from 0, in any order. */
SJ_API int32_t sj_request_indices(const sj_session *session, const uint64_t *samples, uint64_t count,
                                  const sj_scrub_options *options, sj_request **request);

/* A request for the set that the session has beside its data. */
SJ_API int32_t sj_request_beside(const sj_session *session, const sj_scrub_options *options, sj_request **request);
SJ_API int32_t sj_request_get_info(const sj_request *request, sj_request_info *info);

/* What it will take at most; times a pass over up to 64 samples. */
SJ_API int32_t sj_request_estimate(const sj_request *request, sj_estimate *estimate);

/* The plan as a page of HTML, that of `scrubjay scrub --dry-run --html`: what it would take, the samples, and what speaks against
   it. Beside what sj_request_estimate does, it measures the model on all retained and validation samples, and cannot be cancelled.
   SJ_ERR_CONFIG where a run would be refused. */
SJ_API int32_t sj_request_get_page(const sj_request *request, const char **html);

/* Carries it out in memory. The session's model is as it was; the new one is the outcome's. Free that with sj_outcome_free. */
SJ_API int32_t sj_request_scrub(const sj_request *request, sj_outcome **outcome);

/* Carries it out into a folder: the model under its own name, report.json, report.html, events.jsonl. A run that was cancelled
   or broken off goes on after its last complete batch, one that is finished is left as it is (finished_before = 1), and the
   folder of another is refused. For sessions of files. */
SJ_API int32_t sj_request_run(const sj_request *request, const char *folder, sj_outcome **outcome);
SJ_API int32_t sj_request_free(sj_request *request); /* NULL is left alone */

/* ---- Outcomes ------------------------------------------------------------------------------------------------------- */

typedef struct sj_outcome_info {
    size_t struct_size;
    uint64_t removed;         /* samples */
    uint64_t not_removed;     /* samples; the receipts say why */
    uint64_t batches;         /* receipts; 0 where it was finished before */
    uint64_t finished_before; /* 1: nothing was done, because the folder holds this run already */
    uint64_t changed_values;
    uint64_t lost_updates;    /* too small for the type of the file */
    double seconds;
} sj_outcome_info;

/* One batch; NaN where a number was not computed. Losses are means, accuracies shares from 0 to 1. */
typedef struct sj_receipt {
    size_t struct_size;
    uint64_t batch, samples; /* its number; how many samples it had: sj_outcome_get_samples */
    uint64_t removed;        /* 0 or 1; 0: the model is as it was before the batch */
    uint64_t units, parameters;
    uint64_t notes;          /* sj_outcome_get_note */
    double forget_loss_before, forget_loss_after, forget_accuracy_before, forget_accuracy_after;
    double retain_loss_before, retain_loss_after, retain_accuracy_before, retain_accuracy_after;
    double validation_loss_before, validation_loss_after, validation_accuracy_before, validation_accuracy_after;
    double length;                 /* the factor on the last step */
    double step_norm;
    double gradient_share_removed; /* of the batch's gradient in the retained objective's */
    double seconds;
} sj_receipt;

SJ_API int32_t sj_outcome_get_info(const sj_outcome *outcome, sj_outcome_info *info);

/* The receipt of batch `batch`, from 0. */
SJ_API int32_t sj_outcome_get_receipt(const sj_outcome *outcome, uint64_t batch, sj_receipt *receipt);

/* Note `number` from 0 of a batch: why it was not removed, or what to know of how. */
SJ_API int32_t sj_outcome_get_note(const sj_outcome *outcome, uint64_t batch, uint64_t number, const char **text);

/* The samples of a batch, by index; `size` is the length of `samples`. */
SJ_API int32_t sj_outcome_get_samples(const sj_outcome *outcome, uint64_t batch, uint64_t *samples, uint64_t size);

/* The report as JSON (docs/REPORT.md): report.json of a run; of a request in memory the same, without the parts about files. */
SJ_API int32_t sj_outcome_get_report(const sj_outcome *outcome, const char **json);

/* The report as a page of HTML: report.html of a run; of a request in memory the same, without the parts about files, made when it
   is first asked for; for that the outcome keeps its request. */
SJ_API int32_t sj_outcome_get_page(const sj_outcome *outcome, const char **html);

/* A new handle of the model after the run; it can be saved, inspected, and be the model of a next session. Where the run was
   finished before, SJ_ERR_ARGUMENT: open the folder's model. */
SJ_API int32_t sj_outcome_get_model(const sj_outcome *outcome, sj_model **model);
SJ_API int32_t sj_outcome_free(sj_outcome *outcome); /* NULL is left alone */

/* ---- Delta files ---------------------------------------------------------------------------------------------------- */

/* What a delta file changed. */
typedef struct sj_delta_rows {
    size_t struct_size;
    uint64_t tensors, rows, values;
} sj_delta_rows;

/* Writes to a folder, which is made if need be, the files of the model after that a delta file (sj_scrub_options.delta_file) makes
   of the files of the model before, and config files beside them. Another model is refused. `changed` may be NULL. */
SJ_API int32_t sj_delta_apply(const char *model, const char *delta, const char *folder, sj_delta_rows *changed);

/* The same back again; the delta must hold the old values ("both"). */
SJ_API int32_t sj_delta_revert(const char *model, const char *delta, const char *folder, sj_delta_rows *changed);

/* ---- Verification (docs/REPORT.md) ---------------------------------------------------------------------------------- */

typedef struct sj_verify_options {
    size_t struct_size;
    const char *forget;             /* the samples that were to be removed, in words as for sj_request_select; */
    const uint64_t *forget_indices; /* or by index: one of the two is needed */
    uint64_t forget_count;
    const char *retain;             /* the retained samples to measure on; default: all others */
    const uint64_t *retain_indices; /* the same by index, instead */
    uint64_t retain_count;
} sj_verify_options;

typedef struct sj_verification_info {
    size_t struct_size;
    uint64_t flags;      /* 0: the model after cannot be told from a retrained one: sj_verification_get_flag */
    uint64_t remembered; /* 0 or 1: the model before remembers the samples; if not, there was little to forget */
    uint64_t references; /* retrained models */
    uint64_t measures;   /* sj_verification_get_measure */
    uint64_t notes;      /* sj_verification_get_note */
    uint64_t forget, retain, test; /* samples of each set */
    uint64_t unseen;     /* test samples that the forgotten are compared with */
} sj_verification_info;

/* NaN where a value is not defined. Shares are from 0 to 1, ranks in per cent. */
typedef struct sj_measure {
    size_t struct_size;
    const char *name;       /* as "forget_accuracy" */
    const char *text;       /* what it is */
    double before, after;   /* of the model before, and after */
    double mean, deviation; /* of the retrained ones, each against the others */
} sj_measure;

typedef struct sj_flag {
    size_t struct_size;
    const char *name;    /* "remembers", "over-forgets", "uneven", "damaged" */
    const char *measure; /* that raised it */
    const char *text;    /* its numbers in words */
} sj_flag;

SJ_API int32_t sj_verify_options_init(sj_verify_options *options, size_t struct_size);

/* Compares a model after unlearning with models that were retrained without the samples. `files` names the model before, the data
   that it was trained on, and how they are read; what else a removal has must be NULL in it. `after`, `references` and `test`, which
   is data that no model has seen, are paths. What train.json tells of a model is checked, as by `scrubjay verify`. Progress is told after
   each model, and can cancel (SJ_ERR_INTERRUPTED); messages are about how files were read. `callbacks` may be NULL; it is not kept.
   Free it with sj_verification_free. */
SJ_API int32_t sj_verification_open(const sj_device *device, const sj_files *files, const char *after,
                                    const char *const *references, uint64_t reference_count, const char *test,
                                    const sj_verify_options *options, const sj_callbacks *callbacks,
                                    sj_verification **verification);

/* The same of models and samples in memory. */
SJ_API int32_t sj_verification_new(const sj_device *device, const sj_model *before, const sj_model *after,
                                   const sj_model *const *references, uint64_t reference_count, const sj_samples *samples,
                                   const sj_samples *test, const sj_verify_options *options, const sj_callbacks *callbacks,
                                   sj_verification **verification);
SJ_API int32_t sj_verification_get_info(const sj_verification *verification, sj_verification_info *info);

/* Measure `number` from 0. */
SJ_API int32_t sj_verification_get_measure(const sj_verification *verification, uint64_t number, sj_measure *measure);

/* Flag `number` from 0. */
SJ_API int32_t sj_verification_get_flag(const sj_verification *verification, uint64_t number, sj_flag *flag);

/* Note `number` from 0: a remark on the models or the data. */
SJ_API int32_t sj_verification_get_note(const sj_verification *verification, uint64_t number, const char **text);

/* The report as JSON: verify.json (docs/REPORT.md). In memory, paths and hashes are null. */
SJ_API int32_t sj_verification_get_report(const sj_verification *verification, const char **json);

/* The same as a page of HTML. */
SJ_API int32_t sj_verification_get_page(const sj_verification *verification, const char **html);
SJ_API int32_t sj_verification_free(sj_verification *verification); /* NULL is left alone */

/* ---- Dependence: CODEC, xi, FOCI (docs/CODEC.md) -------------------------------------------------------------------- */

typedef struct sj_codec_options {
    size_t struct_size;
    const char *measure;     /* "codec" (or NULL), or "xi": Chatterjee's, of one column Z and no X */
    const char *standardize; /* "none" (or NULL), "scale", "bounded" */
    const char *ties;        /* equally near rows: "mean" (or NULL), "first", "random" */
    uint64_t draws;          /* of random ties; 1 */
    double noise;            /* deviation of noise on every column; 0 */
    uint64_t seed;
    uint64_t permutations;   /* for a p-value; 0: none */
    double level;            /* of an interval, as 0.95; NaN: none */
    uint64_t subsamples;     /* for the interval; 400 */
} sj_codec_options;

typedef struct sj_codec_result {
    size_t struct_size;
    double value;            /* T or xi; NaN where it is 0/0 */
    uint64_t rows;
    double p_value;          /* NaN where none was asked for, or the value is */
    double low, high;        /* likewise */
    uint64_t subsample_rows;
} sj_codec_result;

typedef struct sj_foci_options {
    size_t struct_size;
    const char *standardize; /* as above */
    const char *ties;
    uint64_t draws;
    double noise;
    uint64_t seed;
    const uint64_t *initial; /* columns that are known from the start */
    uint64_t initial_count;
    uint64_t max_columns;    /* to stop at; 0: none */
    uint64_t all;            /* 1: order all columns, also where T is not positive */
    const uint64_t *groups;  /* [p]: the group of every column, by number from 0; those of one are chosen together, and steps name
                                groups in the place of columns; UINT64_MAX: not to be chosen. NULL: every column is alone */
} sj_foci_options;

typedef struct sj_foci_step {
    uint64_t column;    /* or the group */
    double conditional; /* T(Y, column | those before it); NaN where it is undefined */
    double cumulative;  /* T(Y, the columns so far) */
} sj_foci_step;

SJ_API int32_t sj_codec_options_init(sj_codec_options *options, size_t struct_size);
SJ_API int32_t sj_foci_options_init(sj_foci_options *options, size_t struct_size);

/* T(Y, Z | X), or xi: y [n] and columns data [n, p] of any type, of which z and x name some by number, from 0; x may be NULL with
   count 0. `options` may be NULL. */
SJ_API int32_t sj_codec(const sj_device *device, const sj_tensor *y, const sj_tensor *data, const uint64_t *z, uint64_t z_count,
                        const uint64_t *x, uint64_t x_count, const sj_codec_options *options, sj_codec_result *result);

/* Selects columns of data [n, p] for y [n]. `steps` has `size` elements, at least max_columns or p; `found` gets how many there
   are. `stopped`, which may be NULL, gets why it ended: "not-positive", "undefined", "max-features", "exhausted". */
SJ_API int32_t sj_foci(const sj_device *device, const sj_tensor *y, const sj_tensor *data, const sj_foci_options *options,
                       sj_foci_step *steps, uint64_t size, uint64_t *found, const char **stopped);

/* The chart of a selection as an SVG file, that of `scrubjay foci --plot`: of `count` steps the T, and their names; `stopped` is the
   reason that sj_foci gave. Writes as sj_devices does. */
SJ_API int32_t sj_foci_plot(const sj_foci_step *steps, const char *const *names, uint64_t count, const char *stopped, char *svg,
                            size_t size, size_t *needed);

/* ---- Tables from files, and the graph of all columns (docs/DATA.md, docs/CODEC.md) ----------------------------------- */

typedef struct sj_table_options {
    size_t struct_size;
    const char *const *categorical; /* columns of categories: "school" becomes their numbers, "school:onehot" a column for each */
    uint64_t categorical_count;
    const char *missing;            /* rows that lack a value: "raise" (or NULL), "omit" */
    const char *const *na;          /* further words for a missing value, in files of text */
    uint64_t na_count;
    const char *header;             /* whether the first line of a .csv or .tsv file has names: "auto" (or NULL), "yes", "no" */
    const char *delimiter;          /* one character, or "tab"; NULL: found */
    const char *decimal;            /* "." or ","; NULL: found */
} sj_table_options;

typedef struct sj_table_info {
    size_t struct_size;
    uint64_t rows;
    uint64_t columns; /* of numbers: sj_table_get_tensor */
    uint64_t sources; /* columns of the file that they are of; fewer where categories became several */
    uint64_t omitted; /* rows that were left out */
    const char *note; /* how the text was read; NULL where it was none. Lives as long as the handle */
} sj_table_info;

typedef struct sj_table_column {
    size_t struct_size;
    const char *name; /* of the file's column. Lives as long as the handle */
    uint64_t source;  /* its place in the list that was asked for: the group of sj_foci_options for columns that belong together */
} sj_table_column;

typedef struct sj_graph_info {
    size_t struct_size;
    uint64_t columns;
    uint64_t edges;       /* pairs of columns of which one is in the other's blanket */
    uint64_t interrupted; /* 1: the search was cancelled, and some columns have no blanket */
} sj_graph_info;

SJ_API int32_t sj_table_options_init(sj_table_options *options, size_t struct_size);

/* Reads columns of a table: .csv, .tsv, .csv.gz, .arff, .npy, .npz, .safetensors (docs/DATA.md). `columns` names them in the order that
   is wanted, as "income,3,7-9": names, and numbers from 0; NULL: all, and then the target `Y`, where the file has one. `options` may be
   NULL. Free it with sj_table_free. */
SJ_API int32_t sj_table_load(const char *path, const char *columns, const sj_table_options *options, sj_table **table);
SJ_API int32_t sj_table_get_info(const sj_table *table, sj_table_info *info);

/* Column `number` of numbers, from 0. */
SJ_API int32_t sj_table_get_column(const sj_table *table, uint64_t number, sj_table_column *column);

/* A view of all values, f64 [rows, columns] with strides; column j begins at data + j * strides[1]. Read it only; it lives as long as the
   handle. */
SJ_API int32_t sj_table_get_tensor(const sj_table *table, sj_tensor *tensor);
SJ_API int32_t sj_table_free(sj_table *table); /* NULL is left alone */

/* The Markov blanket of every column of data [n, p]: FOCI of it on all others. `names` has p names of columns, or is NULL: their numbers.
   Of `options`, which may be NULL, initial and groups must be empty. `resume`, which may be NULL, is a file that finished columns are
   kept in; those that it has are not searched again. Progress is told after every column, and can cancel: the graph then has the
   columns that are finished. `callbacks` may be NULL. Free it with sj_graph_free. */
SJ_API int32_t sj_foci_graph(const sj_device *device, const sj_tensor *data, const char *const *names,
                             const sj_foci_options *options, const char *resume, const sj_callbacks *callbacks,
                             sj_graph **graph);
SJ_API int32_t sj_graph_get_info(const sj_graph *graph, sj_graph_info *info);

/* The blanket of a column, as the steps of sj_foci; p - 1 places are enough. A column that was not looked at has none, and `stopped`, which
   may be NULL, is "interrupted". */
SJ_API int32_t sj_graph_get_blanket(const sj_graph *graph, uint64_t column, sj_foci_step *steps, uint64_t size,
                                    uint64_t *found, const char **stopped);

/* Names, blankets and edges as JSON, that of `scrubjay foci --graph --json`. */
SJ_API int32_t sj_graph_get_json(const sj_graph *graph, const char **json);

/* The same in the language of Graphviz. */
SJ_API int32_t sj_graph_get_dot(const sj_graph *graph, const char **dot);
SJ_API int32_t sj_graph_free(sj_graph *graph); /* NULL is left alone */

/* ---- Benchmarks ----------------------------------------------------------------------------------------------------- */

typedef struct sj_bench_case {
    size_t struct_size;
    const char *name;
    const char *about; /* what it computes */
    const char *dtype; /* of its operands; others than "f32" run on CUDA only */
    uint64_t axes;     /* of its shape: sj_bench_get_axis */
} sj_bench_case;

typedef struct sj_bench_result {
    size_t struct_size;
    double median_seconds, least_seconds;
    uint64_t samples;        /* runs that were timed */
    double bytes, flops;     /* that must move and must be done */
    double error, tolerance; /* against plain loops in f64; for integers, how many differ */
    uint64_t passes;         /* 0 or 1: the error is within the tolerance */
} sj_bench_result;

SJ_API int32_t sj_bench_count(uint64_t *cases);
SJ_API int32_t sj_bench_get_case(uint64_t number, sj_bench_case *info); /* texts live for ever */

/* The name of an axis and its default size; each pointer may be NULL. */
SJ_API int32_t sj_bench_get_axis(uint64_t number, uint64_t axis, const char **name, uint64_t *size);

/* Checks and times the case of this name, also of whole networks, for some hundred milliseconds to ten seconds; `sizes` has one size for each axis, and
   (NULL, 0) is the defaults. */
SJ_API int32_t sj_bench_run(const sj_device *device, const char *name, const uint64_t *sizes, uint64_t count,
                            sj_bench_result *result);

#ifdef __cplusplus
}
#endif

#endif
