/*
Every function with every argument NULL: a status and a message, or success where the header allows NULL. Each line is a call with one
argument NULL and the status that it must have.
*/
#include "world.h"

static int count;

static void expect(int32_t expected, int32_t found, const char *call) {
    char why[256];
    size_t needed = 0;
    ++count;
    if (found != expected) {
        sj_last_error(NULL, why, sizeof why, NULL);
        fprintf(stderr, "%s: status %d, expected %d; last message: %s\n", call, (int)found, (int)expected, why);
        exit(1);
    }
    if (expected != SJ_OK) {
        CHECK(sj_last_error(NULL, NULL, 0, &needed) == SJ_OK && needed > 1);
    }
}
#define NULL_IS(expected, call) expect(expected, call, #call)
#define REFUSED(call) NULL_IS(SJ_ERR_NULL, call)
#define ALLOWED(call) NULL_IS(SJ_OK, call)

static void library(void) {
    uint32_t abi;
    char buffer[8];
    sj_device *other;
    ALLOWED(sj_version(NULL, NULL, NULL));
    ALLOWED(sj_version(&abi, NULL, NULL));
    REFUSED(sj_status_name(SJ_OK, NULL));
    CHECK(sj_last_error(NULL, NULL, 0, NULL) == SJ_OK && sj_last_error(NULL, NULL, 4, NULL) == SJ_ERR_NULL);
    CHECK(sj_last_error(NULL, buffer, sizeof buffer, NULL) == SJ_OK);
    ALLOWED(sj_device_open(NULL, 1, &other));
    OK(sj_device_free(other));
    REFUSED(sj_device_open("cpu", 1, NULL));
    REFUSED(sj_device_get_info(NULL, NULL));
    REFUSED(sj_device_get_info(device, NULL));
    ALLOWED(sj_device_free(NULL));
    ALLOWED(sj_devices(NULL, 0, NULL));
    REFUSED(sj_devices(NULL, 1 << 20, NULL));
}

static void options(void) {
    REFUSED(sj_model_options_init(NULL, sizeof(sj_model_options)));
    REFUSED(sj_data_options_init(NULL, sizeof(sj_data_options)));
    REFUSED(sj_observe_options_init(NULL, sizeof(sj_observe_options)));
    REFUSED(sj_curvature_options_init(NULL, sizeof(sj_curvature_options)));
    REFUSED(sj_solve_options_init(NULL, sizeof(sj_solve_options)));
    REFUSED(sj_callbacks_init(NULL, sizeof(sj_callbacks)));
    REFUSED(sj_files_init(NULL, sizeof(sj_files)));
    REFUSED(sj_session_options_init(NULL, sizeof(sj_session_options)));
    REFUSED(sj_verify_options_init(NULL, sizeof(sj_verify_options)));
    REFUSED(sj_scrub_options_init(NULL, sizeof(sj_scrub_options)));
    REFUSED(sj_codec_options_init(NULL, sizeof(sj_codec_options)));
    REFUSED(sj_foci_options_init(NULL, sizeof(sj_foci_options)));
    REFUSED(sj_train_options_init(NULL, sizeof(sj_train_options)));
    REFUSED(sj_table_options_init(NULL, sizeof(sj_table_options)));
}

static void models(void) {
    sj_model *other;
    size_t size, needed;
    uint32_t unit;
    const char *text;
    unsigned char *bytes = bytes_of(in("model/model.safetensors"), &size);
    REFUSED(sj_model_open(NULL, NULL, &other));
    REFUSED(sj_model_open(in("model"), NULL, NULL));
    REFUSED(sj_model_from_memory(NULL, size, NULL, NULL, NULL, &other));
    REFUSED(sj_model_from_memory(bytes, size, NULL, NULL, NULL, NULL));
    NULL_IS(SJ_ERR_DATA, sj_model_from_memory(NULL, 0, NULL, NULL, NULL, &other));
    ALLOWED(sj_model_from_memory(bytes, size, NULL, NULL, NULL, &other));
    OK(sj_model_free(other));
    REFUSED(sj_model_get_info(NULL, NULL));
    REFUSED(sj_model_get_info(model, NULL));
    REFUSED(sj_model_get_layer(NULL, 0, NULL));
    REFUSED(sj_model_get_layer(model, 0, NULL));
    REFUSED(sj_model_find_unit(NULL, "fc1", 0, &unit));
    REFUSED(sj_model_find_unit(model, NULL, 0, &unit));
    REFUSED(sj_model_find_unit(model, "fc1", 0, NULL));
    REFUSED(sj_model_get_assumed(NULL, 0, &text));
    REFUSED(sj_model_get_assumed(model, 0, NULL));
    REFUSED(sj_model_get_inspection(NULL, NULL, &text, &text));
    ALLOWED(sj_model_get_inspection(model, NULL, NULL, NULL));
    REFUSED(sj_model_save(NULL, in("null-out"), NULL));
    REFUSED(sj_model_save(model, NULL, NULL));
    ALLOWED(sj_model_save(model, in("null-out"), NULL));
    REFUSED(sj_model_get_bytes(NULL, 0, bytes, size, &needed));
    REFUSED(sj_model_get_bytes(model, 0, NULL, size, &needed));
    ALLOWED(sj_model_get_bytes(model, 0, bytes, size, NULL));
    ALLOWED(sj_model_get_bytes(model, 0, NULL, 0, &needed));
    ALLOWED(sj_model_free(NULL));
    REFUSED(sj_export(NULL, NULL, in("null-graph")));
    REFUSED(sj_export(in("model"), NULL, NULL));
    ALLOWED(sj_export(in("model"), NULL, in("null-graph")));
    free(bytes);
}

static void samples(void) {
    float x[8] = {0};
    int32_t label[1] = {0};
    const int64_t sides[2] = {1, 8}, one_side[1] = {1};
    sj_tensor tx = tensor_of(x, SJ_F32, 2, sides), ty = tensor_of(label, SJ_I32, 1, one_side), view;
    const char *text;
    sj_samples *others;
    struct DLManagedTensorVersioned *dlpack;
    REFUSED(sj_samples_new(NULL, &ty, &others));
    REFUSED(sj_samples_new(&tx, NULL, &others));
    REFUSED(sj_samples_new(&tx, &ty, NULL));
    tx.data = NULL;
    REFUSED(sj_samples_new(&tx, &ty, &others));
    tx.data = x, tx.shape = NULL;
    REFUSED(sj_samples_new(&tx, &ty, &others));
    {
        int32_t ids[3] = {1, 2, 3};
        const int64_t ids_sides[2] = {1, 3};
        sj_tensor ti = tensor_of(ids, SJ_I32, 2, ids_sides);
        REFUSED(sj_samples_from_text(NULL, NULL, &ty, &others));
        REFUSED(sj_samples_from_text(&ti, NULL, NULL, &others));
        REFUSED(sj_samples_from_text(&ti, NULL, &ty, NULL));
        ALLOWED(sj_samples_from_text(&ti, NULL, &ty, &others));
        OK(sj_samples_free(others));
    }
    {
        const char *const one[1] = {"a text"}, *const nothing[1] = {NULL};
        REFUSED(sj_samples_from_strings(NULL, one, 1, &ty, NULL, &others));
        REFUSED(sj_samples_from_strings(model, NULL, 1, &ty, NULL, &others));
        REFUSED(sj_samples_from_strings(model, nothing, 1, &ty, NULL, &others));
        REFUSED(sj_samples_from_strings(model, one, 1, NULL, NULL, &others));
        REFUSED(sj_samples_from_strings(model, one, 1, &ty, NULL, NULL));
    }
    REFUSED(sj_samples_get_inspection(NULL, &text, &text));
    ALLOWED(sj_samples_get_inspection(train, NULL, NULL));
    REFUSED(sj_samples_write_image(NULL, 0, in("none.png")));
    REFUSED(sj_samples_write_image(train, 0, NULL));
    REFUSED(sj_samples_load(NULL, model, NULL, &others));
    REFUSED(sj_samples_load(in("val.safetensors"), model, NULL, NULL));
    ALLOWED(sj_samples_load(in("val.safetensors"), NULL, NULL, &others));
    OK(sj_samples_free(others));
    REFUSED(sj_samples_get_info(NULL, NULL));
    REFUSED(sj_samples_get_info(train, NULL));
    REFUSED(sj_samples_get_note(NULL, 0, &text));
    REFUSED(sj_samples_get_note(train, 0, NULL));
    REFUSED(sj_samples_get_tensors(NULL, &view, &view));
    ALLOWED(sj_samples_get_tensors(train, NULL, NULL));
    REFUSED(sj_samples_to_dlpack(NULL, &dlpack));
    REFUSED(sj_samples_to_dlpack(train, NULL));
    ALLOWED(sj_samples_free(NULL));
}

static void passes(void) {
    float x[8] = {0}, logits[3];
    const int64_t sides[2] = {1, 8}, logits_sides[2] = {1, 3};
    sj_tensor tx = tensor_of(x, SJ_F32, 2, sides), to = tensor_of(logits, SJ_F32, 2, logits_sides), view;
    sj_trace *trace;
    struct DLManagedTensorVersioned *dlpack;
    REFUSED(sj_tensor_from_dlpack(NULL, 0, &view));
    REFUSED(sj_forward(NULL, model, &tx, &to));
    REFUSED(sj_forward(device, NULL, &tx, &to));
    REFUSED(sj_forward(device, model, NULL, &to));
    REFUSED(sj_forward(device, model, &tx, NULL));
    to.data = NULL;
    REFUSED(sj_forward(device, model, &tx, &to));
    {
        sj_scores scores = {.struct_size = sizeof scores};
        sj_class_score classes[3];
        REFUSED(sj_evaluate(NULL, model, train, &scores, classes, 3));
        REFUSED(sj_evaluate(device, NULL, train, &scores, classes, 3));
        REFUSED(sj_evaluate(device, model, NULL, &scores, classes, 3));
        REFUSED(sj_evaluate(device, model, train, NULL, classes, 3));
        ALLOWED(sj_evaluate(device, model, train, &scores, NULL, 0));
    }
    REFUSED(sj_observe(NULL, model, train, NULL, &trace));
    REFUSED(sj_observe(device, NULL, train, NULL, &trace));
    REFUSED(sj_observe(device, model, NULL, NULL, &trace));
    REFUSED(sj_observe(device, model, train, NULL, NULL));
    ALLOWED(sj_observe(device, model, train, NULL, &trace));
    REFUSED(sj_trace_get_tensor(NULL, SJ_TRACE_LOSSES, &view));
    REFUSED(sj_trace_get_tensor(trace, SJ_TRACE_LOSSES, NULL));
    REFUSED(sj_trace_to_dlpack(NULL, SJ_TRACE_LOSSES, &dlpack));
    REFUSED(sj_trace_to_dlpack(trace, SJ_TRACE_LOSSES, NULL));
    ALLOWED(sj_trace_free(NULL));
    OK(sj_trace_free(trace));
}

static void blocks(void) {
    float values[64];
    int64_t sides[1];
    const uint32_t unit = 0;
    uint64_t p;
    sj_tensor tensor;
    sj_block *block;
    sj_curvature *curvature;
    REFUSED(sj_block_new(NULL, &unit, 1, &block));
    REFUSED(sj_block_new(model, NULL, 1, &block));
    REFUSED(sj_block_new(model, &unit, 1, NULL));
    OK(sj_block_new(model, &unit, 1, &block));
    REFUSED(sj_block_get_size(NULL, &p));
    REFUSED(sj_block_get_size(block, NULL));
    OK(sj_block_get_size(block, &p));
    CHECK(p <= sizeof values / sizeof *values);
    sides[0] = (int64_t)p;
    memset(values, 0, sizeof values);
    tensor = tensor_of(values, SJ_F32, 1, sides);
    REFUSED(sj_block_get_values(NULL, &tensor));
    REFUSED(sj_block_get_values(block, NULL));
    REFUSED(sj_block_get_gradient(NULL, block, train, &tensor));
    REFUSED(sj_block_get_gradient(device, NULL, train, &tensor));
    REFUSED(sj_block_get_gradient(device, block, NULL, &tensor));
    REFUSED(sj_block_get_gradient(device, block, train, NULL));
    ALLOWED(sj_block_free(NULL));
    REFUSED(sj_curvature_new(NULL, block, train, NULL, &curvature));
    REFUSED(sj_curvature_new(device, NULL, train, NULL, &curvature));
    REFUSED(sj_curvature_new(device, block, NULL, NULL, &curvature));
    REFUSED(sj_curvature_new(device, block, train, NULL, NULL));
    ALLOWED(sj_curvature_new(device, block, train, NULL, &curvature));
    REFUSED(sj_curvature_get_gradient(NULL, &tensor));
    REFUSED(sj_curvature_get_gradient(curvature, NULL));
    REFUSED(sj_curvature_product(NULL, &tensor, &tensor));
    REFUSED(sj_curvature_product(curvature, NULL, &tensor));
    REFUSED(sj_curvature_product(curvature, &tensor, NULL));
    REFUSED(sj_curvature_solve(NULL, NULL, &tensor, NULL, NULL));
    REFUSED(sj_curvature_solve(curvature, NULL, NULL, NULL, NULL));
    ALLOWED(sj_curvature_solve(curvature, NULL, &tensor, NULL, NULL));
    ALLOWED(sj_curvature_free(NULL));
    OK(sj_curvature_free(curvature));
    OK(sj_block_free(block));
}

static sj_session *session;
static sj_request *request;

static void sessions(void) {
    sj_session *other;
    sj_model *of;
    sj_files files;
    OK(sj_files_init(&files, sizeof files));
    REFUSED(sj_session_open(device, NULL, NULL, &session));
    REFUSED(sj_session_open(device, &files, NULL, &session));
    files.model = in("model");
    REFUSED(sj_session_open(device, &files, NULL, &session));
    files.data = in("train.safetensors");
    REFUSED(sj_session_open(NULL, &files, NULL, &session));
    REFUSED(sj_session_open(device, &files, NULL, NULL));
    ALLOWED(sj_session_open(device, &files, NULL, &session));
    REFUSED(sj_session_new(NULL, model, train, NULL, NULL, NULL, &other));
    REFUSED(sj_session_new(device, NULL, train, NULL, NULL, NULL, &other));
    REFUSED(sj_session_new(device, model, NULL, NULL, NULL, NULL, &other));
    REFUSED(sj_session_new(device, model, train, NULL, NULL, NULL, NULL));
    ALLOWED(sj_session_new(device, model, train, NULL, NULL, NULL, &other));
    OK(sj_session_free(other));
    REFUSED(sj_session_get_info(NULL, NULL));
    REFUSED(sj_session_get_info(session, NULL));
    REFUSED(sj_session_get_model(NULL, &of));
    REFUSED(sj_session_get_model(session, NULL));
    REFUSED(sj_session_cancel(NULL));
    REFUSED(sj_session_uncancel(NULL));
    ALLOWED(sj_session_free(NULL));
}

static void requests(void) {
    const uint64_t one = 1;
    sj_scrub_options small;
    sj_request *other;
    sj_outcome *outcome;
    OK(sj_scrub_options_init(&small, sizeof small));
    small.perturbations = 20, small.max_units = 2, small.length = "one", small.despite = "no-val,near-chance";
    REFUSED(sj_request_select(NULL, "0-9", NULL, &other));
    REFUSED(sj_request_select(session, NULL, NULL, &other));
    REFUSED(sj_request_select(session, "0-9", NULL, NULL));
    ALLOWED(sj_request_select(session, "class:2", NULL, &other));
    OK(sj_request_free(other));
    REFUSED(sj_request_indices(NULL, &one, 1, NULL, &other));
    REFUSED(sj_request_indices(session, NULL, 1, NULL, &other));
    REFUSED(sj_request_indices(session, &one, 1, NULL, NULL));
    OK(sj_request_indices(session, &one, 1, &small, &request));
    REFUSED(sj_request_beside(NULL, NULL, &other));
    REFUSED(sj_request_beside(session, NULL, NULL));
    NULL_IS(SJ_ERR_CONFIG, sj_request_beside(session, NULL, &other));
    REFUSED(sj_request_get_info(NULL, NULL));
    REFUSED(sj_request_get_info(request, NULL));
    REFUSED(sj_request_estimate(NULL, NULL));
    REFUSED(sj_request_estimate(request, NULL));
    {
        const char *page;
        REFUSED(sj_request_get_page(NULL, &page));
        REFUSED(sj_request_get_page(request, NULL));
    }
    REFUSED(sj_request_scrub(NULL, &outcome));
    REFUSED(sj_request_scrub(request, NULL));
    REFUSED(sj_request_run(NULL, in("null-run"), &outcome));
    REFUSED(sj_request_run(request, NULL, &outcome));
    REFUSED(sj_request_run(request, in("null-run"), NULL));
    ALLOWED(sj_request_free(NULL));
}

static void outcomes(void) {
    sj_outcome *outcome;
    sj_model *after;
    const char *text;
    uint64_t number;
    OK(sj_request_scrub(request, &outcome));
    REFUSED(sj_outcome_get_info(NULL, NULL));
    REFUSED(sj_outcome_get_info(outcome, NULL));
    REFUSED(sj_outcome_get_receipt(NULL, 0, NULL));
    REFUSED(sj_outcome_get_receipt(outcome, 0, NULL));
    REFUSED(sj_outcome_get_note(NULL, 0, 0, &text));
    REFUSED(sj_outcome_get_note(outcome, 0, 0, NULL));
    REFUSED(sj_outcome_get_samples(NULL, 0, &number, 1));
    REFUSED(sj_outcome_get_samples(outcome, 0, NULL, 1));
    REFUSED(sj_outcome_get_report(NULL, &text));
    REFUSED(sj_outcome_get_report(outcome, NULL));
    REFUSED(sj_outcome_get_page(NULL, &text));
    REFUSED(sj_outcome_get_page(outcome, NULL));
    REFUSED(sj_outcome_get_model(NULL, &after));
    REFUSED(sj_outcome_get_model(outcome, NULL));
    ALLOWED(sj_outcome_free(NULL));
    OK(sj_outcome_free(outcome));
    OK(sj_request_free(request));
    OK(sj_session_free(session));
}

static void deltas(void) {
    const char *delta = in("model/model.safetensors"); /* which is none */
    REFUSED(sj_delta_apply(NULL, delta, in("null-delta"), NULL));
    REFUSED(sj_delta_apply(in("model"), NULL, in("null-delta"), NULL));
    REFUSED(sj_delta_apply(in("model"), delta, NULL, NULL));
    NULL_IS(SJ_ERR_DATA, sj_delta_apply(in("model"), delta, in("null-delta"), NULL));
    REFUSED(sj_delta_revert(NULL, delta, in("null-delta"), NULL));
    REFUSED(sj_delta_revert(in("model"), NULL, in("null-delta"), NULL));
    REFUSED(sj_delta_revert(in("model"), delta, NULL, NULL));
}

static void verifications(void) {
    const char *reference = in("retrained/seed-1"), *text;
    sj_model *retrained, *none = NULL;
    sj_verify_options options;
    sj_files files;
    sj_verification *verification, *other;
    OK(sj_model_open(reference, NULL, &retrained));
    OK(sj_files_init(&files, sizeof files));
    OK(sj_verify_options_init(&options, sizeof options));
    files.model = in("model"), files.data = in("train.safetensors"), options.forget = "0-29";
    REFUSED(sj_verification_open(NULL, &files, files.model, &reference, 1, files.data, &options, NULL, &other));
    REFUSED(sj_verification_open(device, NULL, files.model, &reference, 1, files.data, &options, NULL, &other));
    REFUSED(sj_verification_open(device, &files, NULL, &reference, 1, files.data, &options, NULL, &other));
    REFUSED(sj_verification_open(device, &files, files.model, NULL, 1, files.data, &options, NULL, &other));
    REFUSED(sj_verification_open(device, &files, files.model, &reference, 1, NULL, &options, NULL, &other));
    NULL_IS(SJ_ERR_ARGUMENT, sj_verification_open(device, &files, files.model, &reference, 1, files.data, NULL, NULL, &other));
    REFUSED(sj_verification_open(device, &files, files.model, &reference, 1, files.data, &options, NULL, NULL));
    {
        const sj_model *const one[1] = {retrained}, *const nothing[1] = {none};
        REFUSED(sj_verification_new(NULL, model, model, one, 1, train, validation, &options, NULL, &other));
        REFUSED(sj_verification_new(device, NULL, model, one, 1, train, validation, &options, NULL, &other));
        REFUSED(sj_verification_new(device, model, NULL, one, 1, train, validation, &options, NULL, &other));
        REFUSED(sj_verification_new(device, model, model, NULL, 1, train, validation, &options, NULL, &other));
        REFUSED(sj_verification_new(device, model, model, nothing, 1, train, validation, &options, NULL, &other));
        REFUSED(sj_verification_new(device, model, model, one, 1, NULL, validation, &options, NULL, &other));
        REFUSED(sj_verification_new(device, model, model, one, 1, train, NULL, &options, NULL, &other));
        NULL_IS(SJ_ERR_ARGUMENT, sj_verification_new(device, model, model, one, 1, train, validation, NULL, NULL, &other));
        REFUSED(sj_verification_new(device, model, model, one, 1, train, validation, &options, NULL, NULL));
        ALLOWED(sj_verification_new(device, model, model, one, 1, train, validation, &options, NULL, &verification));
    }
    REFUSED(sj_verification_get_info(NULL, NULL));
    REFUSED(sj_verification_get_info(verification, NULL));
    REFUSED(sj_verification_get_measure(NULL, 0, NULL));
    REFUSED(sj_verification_get_measure(verification, 0, NULL));
    REFUSED(sj_verification_get_flag(NULL, 0, NULL));
    REFUSED(sj_verification_get_note(NULL, 0, &text));
    REFUSED(sj_verification_get_note(verification, 0, NULL));
    REFUSED(sj_verification_get_report(NULL, &text));
    REFUSED(sj_verification_get_report(verification, NULL));
    REFUSED(sj_verification_get_page(NULL, &text));
    REFUSED(sj_verification_get_page(verification, NULL));
    ALLOWED(sj_verification_free(NULL));
    OK(sj_verification_free(verification));
    OK(sj_model_free(retrained));
}

static void training(void) {
    sj_train_options one;
    sj_files files;
    sj_model *other;
    OK(sj_train_options_init(&one, sizeof one));
    one.epochs = 1;
    REFUSED(sj_train(NULL, "mlp:4", NULL, train, NULL, &one, NULL, NULL, 0, &other));
    NULL_IS(SJ_ERR_ARGUMENT, sj_train(device, NULL, NULL, train, NULL, &one, NULL, NULL, 0, &other));
    REFUSED(sj_train(device, "mlp:4", NULL, NULL, NULL, &one, NULL, NULL, 0, &other));
    REFUSED(sj_train(device, "mlp:4", NULL, train, NULL, &one, NULL, NULL, 0, NULL));
    ALLOWED(sj_train(device, "mlp:4", NULL, train, NULL, &one, NULL, NULL, 0, &other));
    OK(sj_model_free(other));
    OK(sj_files_init(&files, sizeof files));
    files.arch = "mlp:4";
    REFUSED(sj_train_run(device, &files, &one, NULL, in("null-trained"), NULL, 0));
    files.data = in("train.safetensors");
    REFUSED(sj_train_run(NULL, &files, &one, NULL, in("null-trained"), NULL, 0));
    REFUSED(sj_train_run(device, NULL, &one, NULL, in("null-trained"), NULL, 0));
    REFUSED(sj_train_run(device, &files, &one, NULL, NULL, NULL, 0));
    ALLOWED(sj_train_run(device, &files, &one, NULL, in("null-trained"), NULL, 0));
}

static void tables(void) {
    double cells[12] = {1, 5, 2, 4, 3, 3, 6, 2, 4, 1, 5, 0};
    const int64_t sides[2] = {6, 2};
    const char *const names[2] = {"a", NULL};
    sj_tensor columns = tensor_of(cells, SJ_F64, 2, sides), view;
    sj_table *table;
    sj_graph *graph;
    uint64_t found;
    const char *text;
    sj_foci_step step;
    char svg[4096];
    FILE *file = fopen(in("null.csv"), "w");
    CHECK(file != NULL && fputs("a,b\n1,2\n3,4\n", file) >= 0 && fclose(file) == 0);
    REFUSED(sj_table_load(NULL, NULL, NULL, &table));
    REFUSED(sj_table_load(in("null.csv"), NULL, NULL, NULL));
    ALLOWED(sj_table_load(in("null.csv"), NULL, NULL, &table));
    REFUSED(sj_table_get_info(NULL, NULL));
    REFUSED(sj_table_get_info(table, NULL));
    REFUSED(sj_table_get_column(NULL, 0, NULL));
    REFUSED(sj_table_get_column(table, 0, NULL));
    REFUSED(sj_table_get_tensor(NULL, &view));
    REFUSED(sj_table_get_tensor(table, NULL));
    ALLOWED(sj_table_free(NULL));
    OK(sj_table_free(table));
    REFUSED(sj_foci_graph(NULL, &columns, NULL, NULL, NULL, NULL, &graph));
    REFUSED(sj_foci_graph(device, NULL, NULL, NULL, NULL, NULL, &graph));
    REFUSED(sj_foci_graph(device, &columns, names, NULL, NULL, NULL, &graph));
    REFUSED(sj_foci_graph(device, &columns, NULL, NULL, NULL, NULL, NULL));
    ALLOWED(sj_foci_graph(device, &columns, NULL, NULL, NULL, NULL, &graph));
    REFUSED(sj_graph_get_info(NULL, NULL));
    REFUSED(sj_graph_get_info(graph, NULL));
    REFUSED(sj_graph_get_blanket(NULL, 0, &step, 1, &found, &text));
    REFUSED(sj_graph_get_blanket(graph, 0, &step, 1, NULL, &text));
    ALLOWED(sj_graph_get_blanket(graph, 0, &step, 1, &found, NULL));
    REFUSED(sj_graph_get_json(NULL, &text));
    REFUSED(sj_graph_get_json(graph, NULL));
    REFUSED(sj_graph_get_dot(NULL, &text));
    REFUSED(sj_graph_get_dot(graph, NULL));
    ALLOWED(sj_graph_free(NULL));
    OK(sj_graph_free(graph));
    step.column = 0, step.conditional = step.cumulative = 0.5;
    REFUSED(sj_foci_plot(NULL, names, 1, "exhausted", svg, sizeof svg, NULL));
    REFUSED(sj_foci_plot(&step, NULL, 1, "exhausted", svg, sizeof svg, NULL));
    REFUSED(sj_foci_plot(&step, names, 1, NULL, svg, sizeof svg, NULL));
    REFUSED(sj_foci_plot(&step, names, 1, "exhausted", NULL, 1 << 20, NULL));
    ALLOWED(sj_foci_plot(&step, names, 1, "exhausted", svg, sizeof svg, NULL));
}

static void dependence(void) {
    double table[6] = {1, 5, 2, 4, 3, 3}, target[6] = {1, 2, 3, 4, 5, 6};
    const int64_t table_sides[2] = {6, 1}, target_sides[1] = {6};
    sj_tensor columns = tensor_of(table, SJ_F64, 2, table_sides), y = tensor_of(target, SJ_F64, 1, target_sides);
    sj_codec_result result = {.struct_size = sizeof result};
    const uint64_t z = 0;
    uint64_t found;
    const char *stopped;
    sj_foci_step step;
    REFUSED(sj_codec(NULL, &y, &columns, &z, 1, NULL, 0, NULL, &result));
    REFUSED(sj_codec(device, NULL, &columns, &z, 1, NULL, 0, NULL, &result));
    REFUSED(sj_codec(device, &y, NULL, &z, 1, NULL, 0, NULL, &result));
    REFUSED(sj_codec(device, &y, &columns, NULL, 1, NULL, 0, NULL, &result));
    REFUSED(sj_codec(device, &y, &columns, &z, 1, NULL, 1, NULL, &result));
    REFUSED(sj_codec(device, &y, &columns, &z, 1, NULL, 0, NULL, NULL));
    ALLOWED(sj_codec(device, &y, &columns, &z, 1, NULL, 0, NULL, &result));
    REFUSED(sj_foci(NULL, &y, &columns, NULL, &step, 1, &found, &stopped));
    REFUSED(sj_foci(device, NULL, &columns, NULL, &step, 1, &found, &stopped));
    REFUSED(sj_foci(device, &y, NULL, NULL, &step, 1, &found, &stopped));
    REFUSED(sj_foci(device, &y, &columns, NULL, NULL, 1, &found, &stopped));
    REFUSED(sj_foci(device, &y, &columns, NULL, &step, 1, NULL, &stopped));
    ALLOWED(sj_foci(device, &y, &columns, NULL, &step, 1, &found, NULL));
}

static void benchmarks(void) {
    const uint64_t one = 1;
    sj_bench_result result = {.struct_size = sizeof result};
    REFUSED(sj_bench_count(NULL));
    REFUSED(sj_bench_get_case(0, NULL));
    ALLOWED(sj_bench_get_axis(0, 0, NULL, NULL));
    REFUSED(sj_bench_run(NULL, "copy", &one, 1, &result));
    REFUSED(sj_bench_run(device, NULL, &one, 1, &result));
    REFUSED(sj_bench_run(device, "copy", NULL, 1, &result));
    REFUSED(sj_bench_run(device, "copy", &one, 1, NULL));
}

int main(int argc, char **argv) {
    open_world(argc, argv);
    library();
    options();
    models();
    samples();
    passes();
    blocks();
    sessions();
    requests();
    outcomes();
    deltas();
    verifications();
    training();
    tables();
    dependence();
    benchmarks();
    close_world();
    printf("null: %d calls\n", count);
    return 0;
}
