/*
Sessions, requests and outcomes, on the files that the driver makes: `runs FOLDER` writes models there, which the driver compares with the
command's, byte for byte.
*/
#include <math.h>

#include "world.h"

/* What a run told. */
struct told {
    int calls, logged, cancel_at;
    sj_session *session;
    sj_request *frees; /* while it runs */
};

static int32_t on_progress(const sj_progress *progress, void *user) {
    struct told *told = user;
    sj_session_info info = {.struct_size = sizeof info};
    CHECK(progress->done <= progress->batches);
    if (told->session != NULL) OK(sj_session_get_info(told->session, &info)); /* a callback may call */
    if (told->frees != NULL) {
        OK(sj_request_free(told->frees));
        told->frees = NULL;
    }
    return told->calls++ == told->cancel_at;
}

static void on_log(int32_t level, const char *message, void *user) {
    struct told *told = user;
    CHECK((level == 0 || level == 1) && strlen(message) > 0);
    ++told->logged;
}

static void set(sj_scrub_options *options) {
    OK(sj_scrub_options_init(options, sizeof *options));
    options->despite = "no-val,near-chance";
    options->batch = 15, options->perturbations = 60, options->stages = 2;
    options->target_loss = 1, options->gate = 1; /* an effect that can be measured */
}

/* A session of the files, and one of the same in memory; told by both. */
static struct told told = {0, 0, -1, NULL, NULL};
static sj_session *session, *memory;
static uint64_t indices[30];

static void open_sessions(void) {
    static char data[3][1024];
    const char *names[3] = {"model", "train.safetensors", "val.safetensors"};
    sj_files files;
    sj_callbacks callbacks;
    uint64_t i;
    for (i = 0; i < 3; ++i) snprintf(data[i], sizeof data[i], "%s", in(names[i]));
    for (i = 0; i < 30; ++i) indices[i] = 29 - i; /* in any order */
    OK(sj_files_init(&files, sizeof files));
    files.model = data[0], files.data = data[1], files.validation = data[2];
    OK(sj_callbacks_init(&callbacks, sizeof callbacks));
    callbacks.progress = on_progress, callbacks.log = on_log, callbacks.user = &told;
    OK(sj_session_open(device, &files, &callbacks, &session));
    OK(sj_session_new(device, model, train, validation, NULL, &callbacks, &memory));
}

/* What a finished run says of itself. */
static void outcomes(sj_outcome *outcome) {
    sj_outcome_info done = {.struct_size = sizeof done};
    sj_receipt receipt = {.struct_size = sizeof receipt};
    uint64_t of_batch[16];
    size_t size;
    const char *text;
    unsigned char *bytes;
    OK(sj_outcome_get_info(outcome, &done));
    CHECK(done.removed == 30 && done.not_removed == 0 && done.batches == 2 && done.finished_before == 0);
    CHECK(done.changed_values > 0 && told.calls > 10 && told.logged >= 2);
    OK(sj_outcome_get_receipt(outcome, 1, &receipt));
    CHECK(receipt.batch == 1 && receipt.samples == 15 && receipt.removed == 1 && receipt.units > 0);
    CHECK(receipt.forget_loss_after > receipt.forget_loss_before && receipt.validation_accuracy_after > 0.5);
    FAILS(SJ_ERR_ARGUMENT, "batch 2 of 2", sj_outcome_get_receipt(outcome, 2, &receipt));
    OK(sj_outcome_get_samples(outcome, 1, of_batch, 16));
    CHECK(of_batch[0] == 15 && of_batch[14] == 29);
    FAILS(SJ_ERR_BUFFER, "14 places", sj_outcome_get_samples(outcome, 1, of_batch, 14));
    OK(sj_outcome_get_report(outcome, &text));
    bytes = bytes_of(in("out-c/report.json"), &size);
    CHECK(strcmp((char *)bytes, text) == 0);
    free(bytes);
}

/* A run into a folder, and the same again: the driver compares the model with the command's. */
static void runs(void) {
    sj_request *request;
    sj_request_info info = {.struct_size = sizeof info};
    sj_estimate estimate = {.struct_size = sizeof estimate};
    sj_scrub_options options;
    sj_outcome *outcome;
    sj_outcome_info done = {.struct_size = sizeof done};
    sj_model *after;
    set(&options);
    told.session = session;
    OK(sj_request_select(session, "0-29", &options, &request));
    OK(sj_request_get_info(request, &info));
    CHECK(info.forget == 30 && info.batches == 2 && info.batch == 15);
    OK(sj_request_estimate(request, &estimate));
    CHECK(estimate.units_at_most > 0 && estimate.seconds_at_most > 0);
    CHECK(estimate.memory_bytes > estimate.memory_in_use && estimate.memory_in_use > 0);
    CHECK(estimate.memory_free > 0 && estimate.kept_share > 0 && estimate.kept_share <= 1);
    OK(sj_request_run(request, in("out-c"), &outcome));
    outcomes(outcome);
    OK(sj_outcome_get_model(outcome, &after));
    OK(sj_model_save(after, in("saved-after-run"), NULL));
    OK(sj_model_free(after));
    OK(sj_outcome_free(outcome));
    OK(sj_request_run(request, in("out-c"), &outcome)); /* finished: nothing is done */
    OK(sj_outcome_get_info(outcome, &done));
    CHECK(done.finished_before == 1 && done.removed == 30);
    FAILS(SJ_ERR_ARGUMENT, "finished before", sj_outcome_get_model(outcome, &after));
    OK(sj_outcome_free(outcome));
    FAILS(SJ_ERR_CONFIG, "folder of the model", sj_request_run(request, in("model"), &outcome));
    CHECK(outcome == NULL);
    OK(sj_request_free(request));

    /* Cancelled in a folder after one of two batches, and gone on with: the driver compares the model. */
    OK(sj_request_select(session, "0-29", &options, &request));
    told.calls = 0, told.cancel_at = 12;
    FAILS(SJ_ERR_INTERRUPTED, "batches are in", sj_request_run(request, in("out-resumed"), &outcome));
    told.cancel_at = -1;
    OK(sj_session_uncancel(session));
    OK(sj_request_run(request, in("out-resumed"), &outcome));
    OK(sj_outcome_free(outcome));
    OK(sj_request_free(request));
    told.session = NULL;
}

/* The same in memory, then cancelled at every call of progress: interrupted, and the model is as it was. */
static void scrubs(void) {
    sj_request *request;
    sj_scrub_options options;
    sj_outcome *outcome;
    sj_model *after, *before;
    size_t size, again;
    const char *text;
    unsigned char *bytes = bytes_of(in("model/model.safetensors"), &size), *now = malloc(size);
    int calls, at;
    set(&options);
    told.calls = 0;
    OK(sj_request_indices(memory, indices, 30, &options, &request));
    FAILS(SJ_ERR_CONFIG, "no files to write", sj_request_run(request, in("out-memory"), &outcome));
    OK(sj_request_scrub(request, &outcome));
    OK(sj_outcome_get_report(outcome, &text));
    CHECK(strstr(text, "\"removed\":30") != NULL);
    OK(sj_outcome_get_model(outcome, &after));
    OK(sj_session_get_model(memory, &before));
    OK(sj_model_save(after, in("saved-after-scrub"), NULL));
    OK(sj_outcome_free(outcome));
    calls = told.calls;
    CHECK(calls > 10 && now != NULL);
    for (at = 0; at < calls; ++at) {
        told.calls = 0, told.cancel_at = at;
        FAILS(SJ_ERR_INTERRUPTED, "interrupted", sj_request_scrub(request, &outcome));
        CHECK(outcome == NULL && told.calls > at && told.calls <= at + 4); /* it ends soon */
        OK(sj_model_get_bytes(before, 0, now, size, &again));
        CHECK(again == size && memcmp(now, bytes, size) == 0);
        told.cancel_at = -1;
        FAILS(SJ_ERR_INTERRUPTED, "sj_session_uncancel", sj_request_scrub(request, &outcome)); /* used again */
        OK(sj_session_uncancel(memory));
    }
    OK(sj_session_cancel(memory));
    FAILS(SJ_ERR_INTERRUPTED, "sj_session_uncancel", sj_request_scrub(request, &outcome));
    OK(sj_session_uncancel(memory));
    OK(sj_session_free(memory)); /* the request keeps the session */
    told.frees = request;        /* and the run the request */
    OK(sj_request_scrub(request, &outcome));
    OK(sj_outcome_free(outcome));
    FAILS(SJ_ERR_HANDLE, "freed", sj_request_free(request));
    OK(sj_model_free(after));
    OK(sj_model_free(before));
    free(bytes), free(now);
}

/* Samples and options that mean nothing. */
static void refusals(void) {
    sj_request *request;
    sj_scrub_options options;
    set(&options);
    FAILS(SJ_ERR_CONFIG, "sample 2000", sj_request_select(session, "1000-2000", &options, &request));
    FAILS(SJ_ERR_CONFIG, "nothing is left", sj_request_select(session, "0-149", &options, &request));
    options.selection = "guess";
    FAILS(SJ_ERR_ARGUMENT, "selection", sj_request_select(session, "0-29", &options, &request));
    options.selection = NULL, options.precondition = 2;
    FAILS(SJ_ERR_ARGUMENT, "precondition", sj_request_select(session, "0-29", &options, &request));
    options.precondition = 0, options.sigma = -1;
    FAILS(SJ_ERR_CONFIG, "sigma", sj_request_select(session, "0-29", &options, &request));
    options.sigma = NAN, options.perturbations = UINT64_MAX;
    FAILS(SJ_ERR_CONFIG, "perturbations", sj_request_select(session, "0-29", &options, &request));
    options.perturbations = 60, options.retain = "30-59", options.retain_indices = indices, options.retain_count = 1;
    FAILS(SJ_ERR_ARGUMENT, "two answers", sj_request_select(session, "0-29", &options, &request));
    options.retain = NULL;
    FAILS(SJ_ERR_CONFIG, "to be forgotten and to be retained", sj_request_select(session, "29", &options, &request));
    indices[0] = UINT64_MAX;
    FAILS(SJ_ERR_CONFIG, "sample 18446744073709551615", sj_request_indices(session, indices, 1, NULL, &request));
    FAILS(SJ_ERR_ARGUMENT, "can be addressed", sj_request_indices(session, indices, UINT64_MAX, NULL, &request));
    FAILS(SJ_ERR_CONFIG, "empty", sj_request_indices(session, NULL, 0, NULL, &request));
    OK(sj_session_free(session));
}

/* A class and wrong labels. */
static void kinds_of_requests(void) {
    sj_session *session;
    sj_request *request;
    sj_scrub_options options;
    sj_request_info info = {.struct_size = sizeof info};
    sj_outcome *outcome;
    sj_outcome_info done = {.struct_size = sizeof done};
    sj_receipt receipt = {.struct_size = sizeof receipt};
    OK(sj_session_new(device, model, train, validation, NULL, NULL, &session));
    OK(sj_scrub_options_init(&options, sizeof options));
    options.despite = "no-val,near-chance";
    options.perturbations = 60, options.gate = 1;
    OK(sj_request_select(session, "class:2", &options, &request));
    OK(sj_request_get_info(request, &info));
    CHECK(info.batches == 1 && info.batch == info.forget);
    OK(sj_request_scrub(request, &outcome));
    OK(sj_outcome_get_info(outcome, &done));
    CHECK(done.removed + done.not_removed == info.forget);
    OK(sj_outcome_free(outcome));
    OK(sj_request_free(request));
    options.wrong_labels = 1;
    OK(sj_request_select(session, "0-11", &options, &request));
    OK(sj_request_free(request));
    options.wrong_labels = 0, options.perturbations = 0, options.method = "hold", options.hold_epochs = options.proxy_epochs = 1;
    OK(sj_request_select(session, "0-11", &options, &request));
    OK(sj_request_scrub(request, &outcome));
    OK(sj_outcome_get_receipt(outcome, 0, &receipt));
    CHECK(receipt.samples == 12 && receipt.units == 0 && receipt.forget_loss_after > 0);
    OK(sj_outcome_free(outcome));
    OK(sj_request_free(request));
    options.proxy = "given";
    FAILS(SJ_ERR_CONFIG, "proxy", sj_request_select(session, "0-11", &options, &request));
    OK(sj_session_free(session));
}

/* Structs of other versions. */
static void struct_sizes(void) {
    struct {
        sj_model_info info;
        uint64_t later[4];
    } larger;
    struct {
        sj_scrub_options options;
        uint64_t later[4];
    } options;
    sj_model_info smaller;
    sj_session *session;
    sj_request *request;
    memset(&larger, 0xff, sizeof larger);
    larger.info.struct_size = sizeof larger;
    OK(sj_model_get_info(model, &larger.info));
    CHECK(larger.info.units > 0 && larger.later[0] == 0 && larger.later[3] == 0 && larger.info.struct_size == sizeof larger);
    memset(&smaller, 0xff, sizeof smaller);
    smaller.struct_size = offsetof(sj_model_info, classes);
    OK(sj_model_get_info(model, &smaller));
    CHECK(smaller.channels == 8 && smaller.classes == UINT64_MAX && smaller.files == UINT64_MAX);
    smaller.struct_size = 12;
    FAILS(SJ_ERR_ARGUMENT, "struct_size", sj_model_get_info(model, &smaller));
    smaller.struct_size = 0;
    FAILS(SJ_ERR_ARGUMENT, "struct_size", sj_model_get_info(model, &smaller));
    smaller.struct_size = (size_t)-1;
    FAILS(SJ_ERR_ARGUMENT, "struct_size", sj_model_get_info(model, &smaller));

    OK(sj_session_new(device, model, train, validation, NULL, NULL, &session));
    memset(&options, 0xff, sizeof options);
    OK(sj_scrub_options_init(&options.options, sizeof options));
    options.options.despite = "no-val,near-chance";
    CHECK(options.later[0] == 0 && options.later[3] == 0 && options.options.struct_size == sizeof options);
    OK(sj_request_select(session, "0-9", &options.options, &request));
    OK(sj_request_free(request));
    options.later[2] = 1;
    FAILS(SJ_ERR_ARGUMENT, "older than the header", sj_request_select(session, "0-9", &options.options, &request));
    OK(sj_scrub_options_init(&options.options, sizeof options.options));
    options.options.despite = "no-val,near-chance";
    options.options.struct_size = offsetof(sj_scrub_options, n); /* what follows has its defaults, whatever is there */
    options.options.n = 1;
    OK(sj_request_select(session, "0-9", &options.options, &request));
    OK(sj_request_free(request));
    options.options.struct_size = sizeof options.options;
    FAILS(SJ_ERR_CONFIG, "--n 1", sj_request_select(session, "0-9", &options.options, &request));
    FAILS(SJ_ERR_ARGUMENT, "no multiple", sj_request_select(session, "0-9", (sj_scrub_options *)((char *)&options + 1), &request));
    OK(sj_session_free(session));
}

int main(int argc, char **argv) {
    open_world(argc, argv);
    open_sessions();
    runs();
    scrubs();
    refusals();
    kinds_of_requests();
    struct_sizes();
    close_world();
    puts("runs: as the header says");
    return 0;
}
