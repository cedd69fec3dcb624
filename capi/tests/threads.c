/*
Eight threads on shared handles, eight on their own, handles freed while others use them, and a fork with threads running. The sanitizers
look on.
*/
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

enum { THREADS = 8, ROWS = 40 };

static char folder[900];
static sj_device *device;
static sj_model *model;
static sj_samples *samples;
static sj_session *session;
static sj_request *request;
static float expected[ROWS * 3];

static void forward_on(const sj_device *on, const sj_model *of, float *logits) {
    sj_tensor x, out;
    const int64_t out_sides[2] = {ROWS, 3};
    int64_t sides[2] = {ROWS, 8};
    OK(sj_samples_get_tensors(samples, &x, NULL));
    x.ndim = 2, x.shape = sides, x.strides = NULL;
    out = tensor_of(logits, SJ_F32, 2, out_sides);
    OK(sj_forward(on, of, &x, &out));
}

/* Everything shared: passes, runs, failures with messages of this thread alone. */
static void *shared(void *number) {
    float logits[ROWS * 3];
    sj_outcome *outcome;
    sj_outcome_info info = {.struct_size = sizeof info};
    sj_device *none;
    sj_tensor view;
    char name[64], message[512];
    int i;
    for (i = 0; i < 3; ++i) {
        forward_on(device, model, logits);
        CHECK(memcmp(logits, expected, sizeof logits) == 0);
        snprintf(name, sizeof name, "device-%d", *(int *)number);
        CHECK(sj_device_open(name, 1, &none) == SJ_ERR_ARGUMENT && none == NULL);
        OK(sj_last_error(NULL, message, sizeof message, NULL));
        CHECK(strstr(message, name) != NULL);
        OK(sj_samples_get_tensors(samples, &view, NULL));
    }
    OK(sj_request_scrub(request, &outcome));
    OK(sj_outcome_get_info(outcome, &info));
    CHECK(info.removed + info.not_removed == 15);
    OK(sj_outcome_free(outcome));
    return NULL;
}

/* Everything of one's own. */
static void *own(void *number) {
    sj_device *mine;
    sj_model *of;
    char path[1024];
    float logits[ROWS * 3];
    (void)number;
    OK(sj_device_open("cpu", 1, &mine));
    snprintf(path, sizeof path, "%s/model", folder);
    OK(sj_model_open(path, NULL, &of));
    forward_on(mine, of, logits);
    CHECK(memcmp(logits, expected, sizeof logits) == 0);
    OK(sj_model_free(of));
    OK(sj_device_free(mine));
    return NULL;
}

/* One handle that another thread frees: it works or it is dead, and nothing else. */
static void *racing(void *handle) {
    sj_model_info info = {.struct_size = sizeof info};
    int32_t status = SJ_OK;
    int i;
    for (i = 0; i < 2000 && status == SJ_OK; ++i) status = sj_model_get_info(handle, &info);
    CHECK(status == SJ_OK || status == SJ_ERR_HANDLE);
    return NULL;
}

static void *cancels(void *unused) {
    (void)unused;
    OK(sj_session_cancel(session));
    return NULL;
}

static void all(void *(*work)(void *), int same, void *argument) {
    pthread_t threads[THREADS];
    static int numbers[THREADS];
    int i;
    for (i = 0; i < THREADS; ++i) {
        numbers[i] = i;
        CHECK(pthread_create(&threads[i], NULL, work, same ? argument : &numbers[i]) == 0);
    }
    if (work == racing) OK(sj_model_free(argument));
    for (i = 0; i < THREADS; ++i) CHECK(pthread_join(threads[i], NULL) == 0);
}

static void in_a_child(void) {
    sj_model_info info = {.struct_size = sizeof info};
    sj_device *again;
    if (sj_model_get_info(model, &info) != SJ_ERR_HANDLE) _exit(1);
    if (sj_device_open("cpu", 2, &again) != SJ_OK) _exit(2);
    if (sj_device_free(again) != SJ_OK) _exit(3);
    _exit(0);
}

int main(int argc, char **argv) {
    char path[1024];
    sj_scrub_options options;
    sj_model *other;
    sj_outcome *outcome;
    pthread_t thread;
    int status, forks = argc == 3 && strcmp(argv[2], "no-fork") == 0 ? 0 : 4;
    pid_t child;
    CHECK(argc >= 2);
    snprintf(folder, sizeof folder, "%s", argv[1]);
    OK(sj_device_open("cpu", 2, &device));
    snprintf(path, sizeof path, "%s/model", folder);
    OK(sj_model_open(path, NULL, &model));
    OK(sj_model_open(path, NULL, &other));
    snprintf(path, sizeof path, "%s/train.safetensors", folder);
    OK(sj_samples_load(path, model, NULL, &samples));
    OK(sj_session_new(device, model, samples, NULL, NULL, NULL, &session));
    OK(sj_scrub_options_init(&options, sizeof options));
    options.despite = "no-val,near-chance";
    options.perturbations = 40, options.stages = 2;
    OK(sj_request_select(session, "0-14", &options, &request));
    forward_on(device, model, expected);
    all(shared, 0, NULL);
    all(own, 0, NULL);
    all(racing, 1, other);
    while (forks-- > 0) { /* while a thread of the parent is in the library */
        CHECK(pthread_create(&thread, NULL, own, NULL) == 0);
        child = fork();
        CHECK(child >= 0);
        if (child == 0) in_a_child();
        CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
        CHECK(pthread_join(thread, NULL) == 0);
    }
    CHECK(pthread_create(&thread, NULL, cancels, NULL) == 0);
    status = sj_request_scrub(request, &outcome); /* done before the cancel, or interrupted by it */
    CHECK(status == SJ_OK || status == SJ_ERR_INTERRUPTED);
    CHECK(pthread_join(thread, NULL) == 0);
    if (status == SJ_OK) OK(sj_outcome_free(outcome));
    OK(sj_request_free(request));
    OK(sj_session_free(session));
    OK(sj_samples_free(samples));
    OK(sj_model_free(model));
    OK(sj_device_free(device));
    puts("threads: shared, own, racing and forked");
    return 0;
}
