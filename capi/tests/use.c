/*
What the functions do, on the files that the driver makes: `use FOLDER` writes results there, which the driver compares with those of
the command line, byte for byte.
*/
#include <dirent.h>
#include <math.h>
#include <signal.h>

#include "world.h"

static void write_floats(const char *name, const float *values, size_t count) {
    FILE *file = fopen(in(name), "wb");
    CHECK(file != NULL && fwrite(values, sizeof *values, count, file) == count && fclose(file) == 0);
}

static int same_floats(const float *a, const float *b, size_t count) { return memcmp(a, b, count * sizeof *a) == 0; }

/* Versions, names, last errors by handle. */
static void library(void) {
    uint32_t abi, version;
    const char *text;
    char first[256], whole[256], cut[8];
    size_t needed;
    sj_device *other, *none;
    OK(sj_version(&abi, &version, &text));
    CHECK(abi == SJ_ABI && version == SJ_VERSION && strcmp(text, "0.1.0") == 0);
    OK(sj_status_name(SJ_ERR_BUFFER, &text));
    CHECK(strcmp(text, "SJ_ERR_BUFFER") == 0);
    FAILS(SJ_ERR_ARGUMENT, "77", sj_status_name(77, &text));
    OK(sj_device_open("cpu", 1, &other));
    CHECK(sj_device_get_info(other, NULL) == SJ_ERR_NULL);
    OK(sj_last_error(other, first, sizeof first, NULL));
    FAILS(SJ_ERR_ARGUMENT, "`tpu` is no device", sj_device_open("tpu", 1, &none));
    CHECK(none == NULL);
    OK(sj_last_error(NULL, whole, sizeof whole, &needed));
    CHECK(needed == strlen(whole) + 1 && strcmp(first, whole) != 0);
    OK(sj_last_error(NULL, cut, sizeof cut, &needed));
    CHECK(strlen(cut) == sizeof cut - 1 && strncmp(cut, whole, sizeof cut - 1) == 0 && needed == strlen(whole) + 1);
    OK(sj_last_error(other, whole, sizeof whole, NULL));
    CHECK(strcmp(first, whole) == 0); /* of this handle it is still the first one */
    OK(sj_device_free(other));
    FAILS(SJ_ERR_NO_GPU, "no usable GPU", sj_device_open("cuda", 1, &other));
}

/* The same model of files and of memory, inspected, written again. */
static void models(void) {
    size_t size, config_size, needed;
    sj_model *memory, *other;
    sj_model_info info = {.struct_size = sizeof info}, of_memory = {.struct_size = sizeof info};
    sj_layer_info layer = {.struct_size = sizeof layer};
    sj_saved saved = {.struct_size = sizeof saved};
    uint32_t unit;
    uint64_t units = 0, i;
    unsigned char *bytes = bytes_of(in("model/model.safetensors"), &size), *again, *written;
    char *config = (char *)bytes_of(in("model/config.json"), &config_size);
    OK(sj_model_from_memory(bytes, size, config, "copy.safetensors", NULL, &memory));
    OK(sj_model_get_info(model, &info));
    OK(sj_model_get_info(memory, &of_memory));
    CHECK(info.units == of_memory.units && info.classes == 3 && info.channels * info.height * info.width == 8);
    CHECK(info.files == 1 && info.label_width == 1 && info.parameters > 0);
    for (i = 0; i < info.layers; ++i) {
        OK(sj_model_get_layer(model, i, &layer));
        OK(sj_model_find_unit(model, layer.name, layer.units - 1, &unit));
        CHECK(layer.first_unit == units && unit == units + layer.units - 1 && layer.unit_parameters > 0);
        units += layer.units;
    }
    CHECK(units == info.units);
    FAILS(SJ_ERR_ARGUMENT, "layer", sj_model_get_layer(model, info.layers, &layer));
    FAILS(SJ_ERR_CONFIG, "no layer `none`", sj_model_find_unit(model, "none", 0, &unit));
    FAILS(SJ_ERR_CONFIG, "row", sj_model_find_unit(model, layer.name, layer.units, &unit));

    OK(sj_model_get_bytes(memory, 0, NULL, 0, &needed));
    CHECK(needed == size);
    again = malloc(size);
    CHECK(again != NULL);
    FAILS(SJ_ERR_BUFFER, "bytes", sj_model_get_bytes(memory, 0, again, size - 1, &needed));
    OK(sj_model_get_bytes(memory, 0, again, size, &needed));
    CHECK(memcmp(again, bytes, size) == 0);
    FAILS(SJ_ERR_ARGUMENT, "file 1", sj_model_get_bytes(memory, 1, again, size, &needed));
    OK(sj_model_save(memory, in("saved"), &saved));
    CHECK(saved.changed == 0 && saved.lost == 0);
    written = bytes_of(in("saved/copy.safetensors"), &needed);
    CHECK(needed == size && memcmp(written, bytes, size) == 0);
    free(written);
    written = bytes_of(in("saved/config.json"), &needed);
    CHECK(needed == config_size && memcmp(written, config, needed) == 0);
    FAILS(SJ_ERR_CONFIG, "folder of the model", sj_model_save(model, in("model"), NULL));

    FAILS(SJ_ERR_DATA, "safetensors", sj_model_from_memory(bytes, size - 1, config, NULL, NULL, &other));
    FAILS(SJ_ERR_CHECKPOINT, "JSON", sj_model_from_memory(bytes, size, "{", NULL, NULL, &other));
    FAILS(SJ_ERR_CONFIG, "name of a file", sj_model_from_memory(bytes, size, NULL, "../x", NULL, &other));
    FAILS(SJ_ERR_ARGUMENT, "can be addressed", sj_model_from_memory(bytes, (size_t)-1, NULL, NULL, NULL, &other));
    FAILS(SJ_ERR_ARGUMENT, "UTF-8", sj_model_open("\xff", NULL, &other));
    CHECK(other == NULL);
    FAILS(SJ_ERR_IO, "nowhere", sj_model_open(in("nowhere"), NULL, &other));
    OK(sj_model_free(memory));
    FAILS(SJ_ERR_HANDLE, "freed", sj_model_get_info(memory, &info));
    FAILS(SJ_ERR_HANDLE, "freed", sj_model_free(memory));
    FAILS(SJ_ERR_HANDLE, "a model where", sj_device_free((sj_device *)model));
    FAILS(SJ_ERR_HANDLE, "never was", sj_model_free((sj_model *)bytes));
    free(bytes), free(config), free(again), free(written);
}

/* Tensors in every layout and type give the same logits, and what is none is refused. */
static void forward(void) {
    sj_samples_info info = {.struct_size = sizeof info};
    sj_tensor x, y, out, wide, rows;
    float logits[2][64], *values;
    double *doubles, f64_logits[64];
    int64_t sides[2], out_sides[2], strides[2] = {1, 0}, wide_strides[2] = {3, 1};
    size_t i, j, n = 16, features = 8;
    int32_t status;
    OK(sj_samples_get_info(train, &info));
    CHECK(info.channels == features && info.height == 1 && info.label_width == 1 && info.count >= n);
    OK(sj_samples_get_tensors(train, &x, &y));
    CHECK(x.ndim == 4 && x.shape[0] == (int64_t)info.count && x.dtype == SJ_F32 && y.dtype == SJ_U32);
    sides[0] = (int64_t)n, sides[1] = (int64_t)features;
    out_sides[0] = (int64_t)n, out_sides[1] = 3;
    rows = tensor_of(x.data, SJ_F32, 2, sides);
    out = tensor_of(logits[0], SJ_F32, 2, out_sides);
    OK(sj_forward(device, model, &rows, &out));
    write_floats("logits.f32", logits[0], 3 * n);

    /* Columns instead of rows, f64 instead of f32. */
    values = malloc(n * features * sizeof *values), doubles = malloc(n * features * sizeof *doubles);
    CHECK(values != NULL && doubles != NULL);
    for (i = 0; i < n; ++i)
        for (j = 0; j < features; ++j) {
            values[j * n + i] = ((float *)x.data)[i * features + j];
            doubles[i * features + j] = ((float *)x.data)[i * features + j];
        }
    wide = tensor_of(values, SJ_F32, 2, sides);
    strides[1] = (int64_t)n;
    wide.strides = strides;
    out.data = logits[1];
    OK(sj_forward(device, model, &wide, &out));
    CHECK(same_floats(logits[0], logits[1], 3 * n));
    wide = tensor_of(doubles, SJ_F64, 2, sides);
    out = tensor_of(f64_logits, SJ_F64, 2, out_sides);
    out.strides = wide_strides;
    OK(sj_forward(device, model, &wide, &out));
    for (i = 0; i < 3 * n; ++i) CHECK((float)f64_logits[i] == logits[0][i]);

    /* Refused. */
    out = tensor_of(logits[1], SJ_F32, 2, out_sides);
    wide.dtype = SJ_I64;
    FAILS(SJ_ERR_ARGUMENT, "f32, f64, f16 or bf16", sj_forward(device, model, &wide, &out));
    wide.dtype = 99;
    FAILS(SJ_ERR_ARGUMENT, "type 99", sj_forward(device, model, &wide, &out));
    wide.dtype = SJ_F64;
    wide.data = (char *)doubles + 4;
    FAILS(SJ_ERR_ARGUMENT, "no multiple", sj_forward(device, model, &wide, &out));
    wide.data = doubles;
    wide.device = SJ_CUDA;
    status = sj_forward(device, model, &wide, &out); /* a pointer of the host */
    CHECK(status == SJ_ERR_NO_GPU || status == SJ_ERR_CONFIG);
    wide.device_index = -1;
    FAILS(SJ_ERR_ARGUMENT, "GPU -1", sj_forward(device, model, &wide, &out));
    wide.device = 2, wide.device_index = 0;
    FAILS(SJ_ERR_UNSUPPORTED, "device of kind 2", sj_forward(device, model, &wide, &out));
    wide.device = SJ_CPU;
    wide.stream = doubles;
    FAILS(SJ_ERR_ARGUMENT, "stream", sj_forward(device, model, &wide, &out));
    wide.stream = NULL;
    wide.ndim = -1;
    FAILS(SJ_ERR_ARGUMENT, "sides", sj_forward(device, model, &wide, &out));
    wide.ndim = 9;
    FAILS(SJ_ERR_ARGUMENT, "sides", sj_forward(device, model, &wide, &out));
    wide.ndim = 2;
    wide.strides = strides;
    strides[0] = -1;
    FAILS(SJ_ERR_ARGUMENT, "below 0", sj_forward(device, model, &wide, &out));
    strides[0] = INT64_MAX;
    FAILS(SJ_ERR_ARGUMENT, "can be addressed", sj_forward(device, model, &wide, &out));
    strides[0] = 0, sides[0] = (int64_t)1 << 45; /* elements that are there, but far too often */
    FAILS(SJ_ERR_ARGUMENT, "there is memory for", sj_forward(device, model, &wide, &out));
    wide.strides = NULL;
    sides[0] = INT64_MAX;
    FAILS(SJ_ERR_ARGUMENT, "can be addressed", sj_forward(device, model, &wide, &out));
    sides[0] = 0;
    FAILS(SJ_ERR_SHAPE, "holds nothing", sj_forward(device, model, &wide, &out));
    sides[0] = (int64_t)n, sides[1] = 7;
    FAILS(SJ_ERR_SHAPE, "channels", sj_forward(device, model, &wide, &out));
    sides[1] = (int64_t)features;
    doubles[5] = NAN;
    FAILS(SJ_ERR_CONFIG, "sample 0 holds the value NaN", sj_forward(device, model, &wide, &out));
    doubles[5] = 1e300; /* infinite as f32 */
    FAILS(SJ_ERR_CONFIG, "sample 0 holds the value inf", sj_forward(device, model, &wide, &out));
    strides[0] = 0, strides[1] = 1;
    out.strides = strides;
    FAILS(SJ_ERR_ARGUMENT, "one place", sj_forward(device, model, &rows, &out));
    out.strides = NULL;
    out_sides[1] = 4;
    FAILS(SJ_ERR_ARGUMENT, "logits", sj_forward(device, model, &rows, &out));
    free(values), free(doubles);
}

/* Labels that are none. */
static void samples(void) {
    float x[4] = {1, 2, 3, 4};
    int32_t y[2] = {0, -1};
    const int64_t x_sides[2] = {2, 2}, y_sides[1] = {2}, long_sides[1] = {1}, multi[2] = {1, 2};
    sj_samples *made;
    sj_samples_info info = {.struct_size = sizeof info};
    sj_tensor tx = tensor_of(x, SJ_F32, 2, x_sides), ty = tensor_of(y, SJ_I32, 1, y_sides);
    FAILS(SJ_ERR_ARGUMENT, "element 1 is -1", sj_samples_new(&tx, &ty, &made));
    y[1] = 2;
    OK(sj_samples_new(&tx, &ty, &made));
    OK(sj_samples_free(made));
    ty.shape = long_sides;
    FAILS(SJ_ERR_SHAPE, "labels", sj_samples_new(&tx, &ty, &made));
    ty.ndim = 2, ty.shape = multi;
    FAILS(SJ_ERR_ARGUMENT, "0 or 1", sj_samples_new(&tx, &ty, &made));
    ty.dtype = SJ_F32;
    FAILS(SJ_ERR_ARGUMENT, "whole numbers", sj_samples_new(&tx, &ty, &made));
    FAILS(SJ_ERR_IO, "none.safetensors", sj_samples_load(in("none.safetensors"), NULL, NULL, &made));
    CHECK(made == NULL);
    (void)info;
}

/* Traces and blocks: what the commands observe and curvature write, and what follows from each other. */
static void passes(void) {
    sj_observe_options options;
    sj_trace *trace;
    sj_tensor view, g, hv, v, x;
    sj_block *block, *all;
    sj_curvature *curvature;
    sj_curvature_options kind;
    sj_solve_options solve;
    sj_solve_report report = {.struct_size = sizeof report};
    uint32_t units[3] = {2, 0, 17}, twice[2] = {1, 1}, beyond = 1000;
    uint64_t p, i;
    int64_t sides[1];
    float *gradient, *product, *direction, *step, *back;
    double dot = 0, other = 0;
    OK(sj_observe(device, model, train, NULL, &trace));
    OK(sj_trace_get_tensor(trace, SJ_TRACE_ACTIVATIONS, &view));
    CHECK(view.ndim == 2);
    write_floats("activations.f32", view.data, (size_t)(view.shape[0] * view.shape[1]));
    OK(sj_trace_get_tensor(trace, SJ_TRACE_LOSSES, &view));
    write_floats("losses.f32", view.data, (size_t)view.shape[0]);
    FAILS(SJ_ERR_ARGUMENT, "part 3", sj_trace_get_tensor(trace, 3, &view));
    OK(sj_trace_free(trace));
    OK(sj_observe_options_init(&options, sizeof options));
    options.copies = 50, options.sigma = 0.2, options.seed = 7;
    OK(sj_observe(device, model, validation, &options, &trace));
    OK(sj_trace_get_tensor(trace, SJ_TRACE_ACTIVATIONS, &view));
    CHECK(view.shape[0] == 50);
    write_floats("copies.f32", view.data, (size_t)(view.shape[0] * view.shape[1]));
    OK(sj_trace_free(trace));
    options.sigma = -1;
    FAILS(SJ_ERR_ARGUMENT, "sigma", sj_observe(device, model, validation, &options, &trace));
    options.sigma = NAN, options.replace = 2;
    FAILS(SJ_ERR_CONFIG, "--replace is for texts", sj_observe(device, model, validation, &options, &trace));
    options.replace = 0, options.precision = "bf16";
    FAILS(SJ_ERR_CONFIG, "needs CUDA", sj_observe(device, model, validation, &options, &trace));
    options.precision = NULL, options.copies = UINT64_MAX;
    FAILS(SJ_ERR_ARGUMENT, "copies", sj_observe(device, model, validation, &options, &trace));
    options.copies = UINT32_MAX;
    FAILS(SJ_ERR_CONFIG, "memory", sj_observe(device, model, validation, &options, &trace));

    FAILS(SJ_ERR_CONFIG, "named twice", sj_block_new(model, twice, 2, &block));
    FAILS(SJ_ERR_CONFIG, "unit 1000", sj_block_new(model, &beyond, 1, &block));
    FAILS(SJ_ERR_ARGUMENT, "no units", sj_block_new(model, units, 0, &block));
    OK(sj_block_new(model, NULL, 0, &all));
    OK(sj_block_free(all));
    OK(sj_block_new(model, units, 3, &block));
    OK(sj_block_get_size(block, &p));
    sides[0] = (int64_t)p;
    gradient = calloc(p, sizeof *gradient), product = calloc(p, sizeof *product), direction = calloc(p, sizeof *direction);
    step = calloc(p, sizeof *step), back = calloc(p, sizeof *back);
    CHECK(gradient && product && direction && step && back);
    for (i = 0; i < p; ++i) direction[i] = (float)((double)(i * 7 % 5) - 1.5);
    g = tensor_of(gradient, SJ_F32, 1, sides), hv = tensor_of(product, SJ_F32, 1, sides), v = tensor_of(direction, SJ_F32, 1, sides);
    x = tensor_of(step, SJ_F32, 1, sides);
    OK(sj_block_get_gradient(device, block, train, &g));
    OK(sj_curvature_options_init(&kind, sizeof kind));
    kind.kind = "nothing";
    FAILS(SJ_ERR_ARGUMENT, "expected one of `hessian`", sj_curvature_new(device, block, train, &kind, &curvature));
    OK(sj_curvature_new(device, block, train, NULL, &curvature));
    OK(sj_curvature_get_gradient(curvature, &x));
    CHECK(same_floats(gradient, step, p));
    write_floats("gradient.f32", gradient, p);
    OK(sj_curvature_product(curvature, &v, &hv));
    write_floats("hv.f32", product, p);
    write_floats("v.f32", direction, p);
    OK(sj_solve_options_init(&solve, sizeof solve));
    solve.damping = 0.01;
    OK(sj_curvature_solve(curvature, NULL, &x, &solve, &report));
    write_floats("step.f32", step, p);
    CHECK(report.converged == 1 && report.residual <= 1e-5 && report.products > 0);
    hv.data = back; /* (H + 0.01 I) step is the gradient again */
    OK(sj_curvature_product(curvature, &x, &hv));
    for (i = 0; i < p; ++i) {
        dot += pow(back[i] + 0.01 * step[i] - gradient[i], 2);
        other += pow(gradient[i], 2);
    }
    CHECK(dot <= 1e-8 * other && other > 0);
    solve.solver = "cg", solve.negative = "raise";
    OK(sj_curvature_solve(curvature, &v, &x, &solve, NULL));
    solve.solver = "lu";
    FAILS(SJ_ERR_ARGUMENT, "minres or cg", sj_curvature_solve(curvature, NULL, &x, &solve, NULL));
    solve.solver = NULL, solve.negative = NULL, solve.damping = NAN;
    FAILS(SJ_ERR_ARGUMENT, "damping", sj_curvature_solve(curvature, NULL, &x, &solve, NULL));
    direction[1] = INFINITY;
    FAILS(SJ_ERR_ARGUMENT, "v: element 1", sj_curvature_product(curvature, &v, &hv));
    sides[0] = (int64_t)p - 1;
    FAILS(SJ_ERR_ARGUMENT, "gradient", sj_curvature_get_gradient(curvature, &g));
    OK(sj_block_free(block)); /* the curvature keeps what it needs */
    sides[0] = (int64_t)p;
    OK(sj_curvature_get_gradient(curvature, &g));
    OK(sj_curvature_free(curvature));
    free(gradient), free(product), free(direction), free(step), free(back);
}

/* Dependence: the driver compares the values with the commands'. */
static void dependence(void) {
    enum { ROWS = 60, COLUMNS = 3 };
    double table[ROWS][COLUMNS + 1];
    const int64_t sides[2] = {ROWS, COLUMNS}, y_sides[1] = {ROWS}, strides[2] = {COLUMNS + 1, 1}, y_strides[1] = {COLUMNS + 1};
    sj_tensor data = tensor_of(table[0], SJ_F64, 2, sides), y = tensor_of(&table[0][COLUMNS], SJ_F64, 1, y_sides);
    sj_codec_options options;
    sj_codec_result result = {.struct_size = sizeof result}, xi = {.struct_size = sizeof xi};
    sj_foci_options selection;
    sj_foci_step steps[COLUMNS];
    uint64_t z = 1, x = 0, found, i;
    const char *stopped;
    FILE *file = fopen(in("table.csv"), "w");
    CHECK(file != NULL);
    data.strides = strides, y.strides = y_strides;
    fprintf(file, "a,b,c,y\n");
    for (i = 0; i < ROWS; ++i) {
        table[i][0] = (double)(i * 37 % ROWS), table[i][1] = (double)(i * 13 % 59), table[i][2] = (double)(i % 7);
        table[i][3] = (table[i][1] - 30) * (table[i][1] - 30) + table[i][2];
        fprintf(file, "%g,%g,%g,%g\n", table[i][0], table[i][1], table[i][2], table[i][3]);
    }
    CHECK(fclose(file) == 0);
    OK(sj_codec_options_init(&options, sizeof options));
    options.permutations = 99, options.level = 0.9, options.seed = 3;
    OK(sj_codec(device, &y, &data, &z, 1, &x, 1, &options, &result));
    options.measure = "xi", options.level = NAN;
    OK(sj_codec(device, &y, &data, &z, 1, NULL, 0, &options, &xi));
    CHECK(result.rows == ROWS && xi.value > 0.3 && xi.p_value <= 0.02 && isnan(xi.low));
    file = fopen(in("codec.txt"), "w");
    CHECK(file != NULL);
    fprintf(file, "%.17g %.17g %.17g %.17g\n%.17g %.17g\n", result.value, result.p_value, result.low, result.high, xi.value, xi.p_value);
    OK(sj_foci_options_init(&selection, sizeof selection));
    OK(sj_foci(device, &y, &data, &selection, steps, COLUMNS, &found, &stopped));
    CHECK(found > 0 && steps[0].column == 1);
    for (i = 0; i < found; ++i)
        fprintf(file, "%d %.17g %.17g\n", (int)steps[i].column, steps[i].conditional, steps[i].cumulative);
    fprintf(file, "%s\n", stopped);
    CHECK(fclose(file) == 0);
    FAILS(SJ_ERR_BUFFER, "max_columns", sj_foci(device, &y, &data, &selection, steps, COLUMNS - 1, &found, &stopped));
    selection.max_columns = 1;
    OK(sj_foci(device, &y, &data, &selection, steps, 1, &found, &stopped));
    CHECK(found == 1 && strcmp(stopped, "max-features") == 0);
    {
        uint64_t groups[COLUMNS] = {0, 1, 0};
        selection.max_columns = 0, selection.all = 1, selection.groups = groups;
        OK(sj_foci(device, &y, &data, &selection, steps, 2, &found, NULL));
        CHECK(found == 2 && steps[0].column + steps[1].column == 1);
        file = fopen(in("groups.txt"), "w");
        CHECK(file != NULL);
        for (i = 0; i < found; ++i) fprintf(file, "%s %.17g %.17g\n", steps[i].column == 0 ? "a+c" : "b", steps[i].conditional, steps[i].cumulative);
        CHECK(fclose(file) == 0);
        groups[1] = 2;
        FAILS(SJ_ERR_ARGUMENT, "no column is in group 1", sj_foci(device, &y, &data, &selection, steps, 2, &found, NULL));
        groups[1] = UINT64_MAX;
        OK(sj_foci(device, &y, &data, &selection, steps, 1, &found, NULL));
        CHECK(found == 1 && steps[0].column == 0);
        groups[0] = groups[2] = UINT64_MAX;
        FAILS(SJ_ERR_ARGUMENT, "no column", sj_foci(device, &y, &data, &selection, steps, 2, &found, NULL));
        groups[0] = COLUMNS;
        FAILS(SJ_ERR_ARGUMENT, "group 3", sj_foci(device, &y, &data, &selection, steps, 2, &found, NULL));
    }
    z = 3;
    FAILS(SJ_ERR_CONFIG, "column 3", sj_codec(device, &y, &data, &z, 1, NULL, 0, NULL, &result));
    table[4][1] = NAN;
    z = 1;
    FAILS(SJ_ERR_CONFIG, "not a finite number", sj_codec(device, &y, &data, &z, 1, NULL, 0, NULL, &result));
}

static void benchmarks(void) {
    uint64_t cases, sizes[1] = {1 << 12}, too_large[1] = {UINT64_MAX}, size;
    const char *axis;
    sj_bench_case info = {.struct_size = sizeof info};
    sj_bench_result result = {.struct_size = sizeof result};
    OK(sj_bench_count(&cases));
    CHECK(cases > 5);
    OK(sj_bench_get_case(0, &info));
    CHECK(strcmp(info.name, "copy") == 0 && info.axes == 1);
    OK(sj_bench_get_axis(0, 0, &axis, &size));
    CHECK(strcmp(axis, "len") == 0 && size > 0);
    OK(sj_bench_run(device, "copy", sizes, 1, &result));
    CHECK(result.passes == 1 && result.median_seconds > 0 && result.bytes > 0);
    FAILS(SJ_ERR_ARGUMENT, "no case", sj_bench_run(device, "none", sizes, 1, &result));
    FAILS(SJ_ERR_ARGUMENT, "no size", sj_bench_run(device, "copy", too_large, 1, &result));
    FAILS(SJ_ERR_ARGUMENT, "case", sj_bench_get_case(cases, &info));
}

/* Handlers of signals, which are the host's. */
static void handlers(void (**list)(int)) {
    int number;
    for (number = 1; number < 32; ++number) {
        struct sigaction action;
        list[number] = sigaction(number, NULL, &action) == 0 ? action.sa_handler : SIG_DFL;
    }
}

/* That every thread is the program's or a device's: no pool of the process was made. */
static void own_threads(const char *program) {
    DIR *tasks = opendir("/proc/self/task");
    struct dirent *task;
    CHECK(tasks != NULL);
    while ((task = readdir(tasks)) != NULL) {
        char path[300], name[64] = "";
        FILE *file;
        if (task->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "/proc/self/task/%.255s/comm", task->d_name);
        file = fopen(path, "r");
        if (file == NULL) continue; /* it has ended */
        CHECK(fgets(name, sizeof name, file) != NULL && fclose(file) == 0);
        CHECK(strncmp(name, "scrubjay-", 9) == 0 || strncmp(name, program, strlen(program)) == 0);
    }
    closedir(tasks);
}

int main(int argc, char **argv) {
    void (*before[32])(int) = {0}, (*after[32])(int) = {0};
    handlers(before);
    open_world(argc, argv);
    library();
    models();
    forward();
    samples();
    passes();
    dependence();
    benchmarks();
    handlers(after);
    CHECK(memcmp(before, after, sizeof before) == 0);
    own_threads("use");
    close_world();
    puts("use: as the header says");
    return 0;
}
