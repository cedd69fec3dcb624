/* The files that the driver makes, and what the test programs open of them. */
#ifndef WORLD_H
#define WORLD_H

#include "check.h"

static char folder[900];
static sj_device *device;
static sj_model *model;
static sj_samples *train, *validation;

/* The path of a file there; of the last four, each has a place of its own. */
static const char *in(const char *name) {
    static char paths[4][1024];
    static int turn;
    char *path = paths[turn++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

/* Opens device, model and data of the folder that the program was given. */
static void open_world(int argc, char **argv) {
    CHECK(argc == 2);
    snprintf(folder, sizeof folder, "%s", argv[1]);
    OK(sj_device_open("cpu", 2, &device));
    OK(sj_model_open(in("model"), NULL, &model));
    OK(sj_samples_load(in("train.safetensors"), model, NULL, &train));
    OK(sj_samples_load(in("val.safetensors"), model, NULL, &validation));
}

static void close_world(void) {
    OK(sj_samples_free(train));
    OK(sj_samples_free(validation));
    OK(sj_model_free(model));
    OK(sj_device_free(device));
}

#endif
