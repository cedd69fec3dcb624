/*
Verification in memory and of files, pages, delta files, graphs, and what a session in memory has beside its data. The driver compares the
report of the files with the command's.
*/
#include <math.h>

#include "world.h"

enum { REFERENCES = 3, FORGET = 30, FOREIGN = 64 };

static sj_model *retrained[REFERENCES];
static uint64_t forget[FORGET];
static sj_files files;

static int same_bits(double a, double b) { return memcmp(&a, &b, sizeof a) == 0; }

static void text_to(const char *name, const char *text) {
    FILE *file = fopen(in(name), "wb");
    CHECK(file != NULL && fputs(text, file) >= 0 && fclose(file) == 0);
}

static int is_the_file(const char *name, const char *text) {
    size_t size;
    unsigned char *bytes = bytes_of(in(name), &size);
    int same = strlen(text) == size && memcmp(bytes, text, size) == 0;
    free(bytes);
    return same;
}

static int are_the_same(const char *a, const char *b) {
    size_t size, other;
    unsigned char *one = bytes_of(in(a), &size), *two = bytes_of(in(b), &other);
    int same = size == other && memcmp(one, two, size) == 0;
    free(one), free(two);
    return same;
}

static int calls;
static int32_t count_calls(const sj_progress *progress, void *most) {
    CHECK(progress->done == (uint64_t)++calls && progress->batches == REFERENCES + 2 && progress->phase == NULL);
    return calls == *(int *)most;
}

/* A removal in memory: its pages, with the samples and without. */
static sj_outcome *removed(uint64_t no_thumbnails) {
    sj_session_options with;
    sj_scrub_options options;
    sj_session *session;
    sj_request *request;
    sj_outcome *outcome;
    const char *page, *again;
    OK(sj_session_options_init(&with, sizeof with));
    with.no_thumbnails = no_thumbnails;
    OK(sj_session_new(device, model, train, validation, &with, NULL, &session));
    OK(sj_scrub_options_init(&options, sizeof options));
    options.method = "lcodec", options.perturbations = 60, options.stages = 2, options.target_loss = 1, options.gate = 1;
    OK(sj_request_indices(session, forget, FORGET, &options, &request));
    OK(sj_request_get_page(request, &page));
    CHECK(strstr(page, "30 samples to be removed") != NULL && (strstr(page, "<h2>The samples") != NULL) == !no_thumbnails);
    OK(sj_request_get_page(request, &again));
    CHECK(again == page);
    OK(sj_request_scrub(request, &outcome));
    OK(sj_request_free(request));
    OK(sj_session_free(session));
    OK(sj_outcome_get_page(outcome, &page)); /* of objects that only the outcome keeps */
    CHECK(strstr(page, "samples removed") != NULL && (strstr(page, "<h2>The samples") != NULL) == !no_thumbnails);
    OK(sj_outcome_get_page(outcome, &again));
    CHECK(again == page);
    return outcome;
}

/* The same numbers in memory and of files. */
static void verified(const sj_model *after) {
    static const char *const paths[4] = {"retrained/seed-1", "retrained/seed-2", "retrained/seed-3", NULL};
    const char *names[REFERENCES], *json, *page, *note;
    char places[REFERENCES][1024];
    int i, most = FOREIGN;
    sj_verify_options options;
    sj_callbacks callbacks;
    sj_verification *memory, *read, *none;
    sj_verification_info info = {.struct_size = sizeof info}, same = {.struct_size = sizeof same};
    sj_measure measure = {.struct_size = sizeof measure}, other = {.struct_size = sizeof other};
    sj_flag flag = {.struct_size = sizeof flag};
    for (i = 0; i < REFERENCES; ++i) snprintf(places[i], sizeof places[i], "%s", in(paths[i])), names[i] = places[i];
    OK(sj_verify_options_init(&options, sizeof options));
    OK(sj_callbacks_init(&callbacks, sizeof callbacks));
    callbacks.progress = count_calls, callbacks.user = &most;
    options.forget_indices = forget, options.forget_count = FORGET;
    OK(sj_verification_new(device, model, after, (const sj_model *const *)retrained, REFERENCES, train, validation, &options, &callbacks, &memory));
    CHECK(calls == REFERENCES + 2);
    calls = 0, most = 2;
    FAILS(SJ_ERR_INTERRUPTED, "interrupted",
          sj_verification_new(device, model, after, (const sj_model *const *)retrained, REFERENCES, train, validation, &options, &callbacks, &none));
    CHECK(calls == 2 && none == NULL);
    options.forget_count = 0, options.forget = "0-29";
    OK(sj_verification_open(device, &files, in("verify-after"), names, REFERENCES, in("val.safetensors"), &options, NULL, &read));

    OK(sj_verification_get_info(memory, &info));
    OK(sj_verification_get_info(read, &same));
    CHECK(memcmp(&info, &same, offsetof(sj_verification_info, notes)) == 0);
    CHECK(info.references == REFERENCES && info.forget == FORGET && info.retain == 120 && info.test == 60 && info.unseen == 60);
    for (i = 0; i < (int)info.measures; ++i) {
        OK(sj_verification_get_measure(memory, (uint64_t)i, &measure));
        OK(sj_verification_get_measure(read, (uint64_t)i, &other));
        CHECK(strcmp(measure.name, other.name) == 0 && strlen(measure.text) > 20);
        CHECK(same_bits(measure.before, other.before) && same_bits(measure.after, other.after));
        CHECK(same_bits(measure.mean, other.mean) && same_bits(measure.deviation, other.deviation));
        if (strcmp(measure.name, "test_accuracy") == 0) CHECK(measure.before > 0.5 && measure.before <= 1 && measure.deviation >= 0);
        if (strcmp(measure.name, "weight_distance") == 0) CHECK(isnan(measure.before)); /* of convex models alone */
    }
    for (i = 0; i < (int)info.flags; ++i) {
        OK(sj_verification_get_flag(memory, (uint64_t)i, &flag));
        CHECK(strlen(flag.name) > 5 && strlen(flag.measure) > 2 && strlen(flag.text) > 10);
    }
    for (i = 0; i < (int)info.notes; ++i) OK(sj_verification_get_note(memory, (uint64_t)i, &note));
    FAILS(SJ_ERR_ARGUMENT, "measure", sj_verification_get_measure(memory, info.measures, &measure));
    FAILS(SJ_ERR_ARGUMENT, "flag", sj_verification_get_flag(memory, info.flags, &flag));
    FAILS(SJ_ERR_ARGUMENT, "note", sj_verification_get_note(memory, info.notes, &note));
    OK(sj_verification_get_report(memory, &json));
    CHECK(strstr(json, "\"path\":null") != NULL && strstr(json, "\"command\":null") != NULL);
    OK(sj_verification_get_page(memory, &page));
    CHECK(strstr(page, "Is it forgotten?") != NULL && strstr(page, "SHA-256") == NULL);
    OK(sj_verification_get_report(read, &json));
    text_to("verify-c.json", json);
    OK(sj_verification_get_page(read, &page));
    CHECK(strstr(page, "SHA-256") != NULL && strstr(page, names[2]) != NULL);
    OK(sj_verification_free(read));
    OK(sj_verification_free(memory));
    FAILS(SJ_ERR_HANDLE, "verification", sj_verification_get_page(memory, &page));
}

/* Questions that mean nothing. */
static void refused(void) {
    const sj_model *twice[2], *own[1];
    const char *path = in("retrained/seed-1");
    const uint64_t beyond = 150;
    sj_verify_options options;
    sj_verification *none;
    sj_files more = files;
    twice[0] = twice[1] = retrained[0], own[0] = model;
    OK(sj_verify_options_init(&options, sizeof options));
    FAILS(SJ_ERR_ARGUMENT, "forget", sj_verification_new(device, model, model, twice, 1, train, validation, &options, NULL, &none));
    FAILS(SJ_ERR_ARGUMENT, "forget", sj_verification_new(device, model, model, twice, 1, train, validation, NULL, NULL, &none));
    options.forget = "0-29";
    FAILS(SJ_ERR_CONFIG, "bit for bit", sj_verification_new(device, model, model, twice, 2, train, validation, &options, NULL, &none));
    FAILS(SJ_ERR_CONFIG, "the model before", sj_verification_new(device, model, retrained[1], own, 1, train, validation, &options, NULL, &none));
    FAILS(SJ_ERR_CONFIG, "retrained without", sj_verification_new(device, model, model, NULL, 0, train, validation, &options, NULL, &none));
    FAILS(SJ_ERR_CONFIG, "retrained without", sj_verification_open(device, &files, path, NULL, 0, in("val.safetensors"), &options, NULL, &none));
    options.retain = "20-40";
    FAILS(SJ_ERR_CONFIG, "to be retained", sj_verification_new(device, model, model, twice, 1, train, validation, &options, NULL, &none));
    options.retain = NULL, options.forget_indices = &beyond, options.forget_count = 1;
    FAILS(SJ_ERR_ARGUMENT, "two answers", sj_verification_new(device, model, model, twice, 1, train, validation, &options, NULL, &none));
    options.forget = NULL;
    FAILS(SJ_ERR_CONFIG, "sample 150", sj_verification_new(device, model, model, twice, 1, train, validation, &options, NULL, &none));
    more.validation = "val.safetensors";
    options.forget_count = 0, options.forget = "0-29";
    FAILS(SJ_ERR_ARGUMENT, "validation plays no part", sj_verification_open(device, &more, path, &path, 1, path, &options, NULL, &none));
    options.forget = "class:9";
    FAILS(SJ_ERR_CONFIG, "9", sj_verification_open(device, &files, path, &path, 1, in("val.safetensors"), &options, NULL, &none));
    CHECK(none == NULL);
}

/* A run in a folder with a delta file, forth and back again; and a graph. */
static void in_folders(void) {
    sj_scrub_options options;
    sj_session *session;
    sj_request *request;
    sj_outcome *outcome;
    sj_delta_rows rows = {.struct_size = sizeof rows};
    sj_model *graph;
    sj_model_info info = {.struct_size = sizeof info};
    const char *page;
    OK(sj_session_open(device, &files, NULL, &session));
    OK(sj_scrub_options_init(&options, sizeof options));
    options.perturbations = 30, options.stages = 1, options.target_loss = 1, options.gate = 1, options.delta_file = "both";
    options.despite = "no-val,near-chance";
    OK(sj_request_select(session, "0-14", &options, &request));
    OK(sj_request_run(request, in("out-delta"), &outcome));
    OK(sj_outcome_get_page(outcome, &page));
    CHECK(is_the_file("out-delta/report.html", page));
    OK(sj_outcome_free(outcome));
    OK(sj_request_free(request));
    OK(sj_session_free(session));
    OK(sj_delta_apply(in("model"), in("out-delta/delta.safetensors"), in("out-applied"), &rows));
    CHECK(rows.values > 0 && rows.rows > 0 && rows.tensors > 0);
    OK(sj_delta_revert(in("out-applied"), in("out-delta/delta.safetensors"), in("out-reverted"), NULL));
    CHECK(are_the_same("out-applied/model.safetensors", "out-delta/model.safetensors"));
    CHECK(are_the_same("out-reverted/model.safetensors", "model/model.safetensors"));
    FAILS(SJ_ERR_CHECKPOINT, "", sj_delta_apply(in("out-applied"), in("out-delta/delta.safetensors"), in("out-none"), NULL));
    OK(sj_export(in("model"), NULL, in("out-graph")));
    OK(sj_model_open(in("out-graph"), NULL, &graph));
    OK(sj_model_get_info(graph, &info));
    CHECK(info.units == 19 && strcmp(info.family, "graph") == 0);
    OK(sj_model_free(graph));
    FAILS(SJ_ERR_CONFIG, "is there already", sj_export(in("model"), NULL, in("out-graph")));
}

/* A hold by a model that has not seen the samples. */
static void with_a_proxy(void) {
    sj_session_options with;
    sj_scrub_options options;
    sj_session *session;
    sj_request *request;
    sj_outcome *outcome;
    const char *json;
    OK(sj_scrub_options_init(&options, sizeof options));
    options.method = "hold", options.proxy = "given", options.hold_epochs = 1, options.gate = 1;
    OK(sj_session_new(device, model, train, validation, NULL, NULL, &session));
    FAILS(SJ_ERR_CONFIG, "proxy", sj_request_indices(session, forget, FORGET, &options, &request));
    OK(sj_session_free(session));
    OK(sj_session_options_init(&with, sizeof with));
    with.proxy = retrained[0];
    OK(sj_session_new(device, model, train, validation, &with, NULL, &session));
    OK(sj_request_indices(session, forget, FORGET, &options, &request));
    OK(sj_request_scrub(request, &outcome));
    OK(sj_outcome_get_report(outcome, &json));
    CHECK(strstr(json, "\"proxy\":\"given\"") != NULL);
    OK(sj_outcome_free(outcome));
    OK(sj_request_free(request));
    OK(sj_session_free(session));
    with.proxy = (const sj_model *)device;
    FAILS(SJ_ERR_HANDLE, "device", sj_session_new(device, model, train, validation, &with, NULL, &session));
    with.proxy = NULL, with.no_thumbnails = 2;
    FAILS(SJ_ERR_ARGUMENT, "no_thumbnails", sj_session_new(device, model, train, validation, &with, NULL, &session));
}

int main(int argc, char **argv) {
    char name[32];
    sj_outcome *outcome;
    sj_model *after;
    int i;
    open_world(argc, argv);
    for (i = 0; i < FORGET; ++i) forget[i] = (uint64_t)i;
    for (i = 0; i < REFERENCES; ++i) {
        snprintf(name, sizeof name, "retrained/seed-%d", i + 1);
        OK(sj_model_open(in(name), NULL, &retrained[i]));
    }
    OK(sj_files_init(&files, sizeof files));
    {
        static char model_path[1024], data_path[1024];
        snprintf(model_path, sizeof model_path, "%s", in("model"));
        snprintf(data_path, sizeof data_path, "%s", in("train.safetensors"));
        files.model = model_path, files.data = data_path;
    }
    OK(sj_outcome_free(removed(1)));
    outcome = removed(0);
    OK(sj_outcome_get_model(outcome, &after));
    OK(sj_model_save(after, in("verify-after"), NULL));
    verified(after);
    refused();
    in_folders();
    with_a_proxy();
    OK(sj_model_free(after));
    OK(sj_outcome_free(outcome));
    for (i = 0; i < REFERENCES; ++i) OK(sj_model_free(retrained[i]));
    close_world();
    puts("verify: in memory and of files, pages, deltas, graphs, proxies");
    return 0;
}
