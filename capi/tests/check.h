/* What the test programs share: a check that ends the program with a place and the library's own message. */
#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "scrubjay.h"

#define CHECK(condition)                                                                                                 \
    do {                                                                                                                 \
        if (!(condition)) {                                                                                              \
            char why[1024];                                                                                              \
            sj_last_error(NULL, why, sizeof why, NULL);                                                                  \
            fprintf(stderr, "%s:%d: %s\n  last message: %s\n", __FILE__, __LINE__, #condition, why);                     \
            exit(1);                                                                                                     \
        }                                                                                                                \
    } while (0)

/* That a call succeeds. */
#define OK(call) CHECK((call) == SJ_OK)

/* That a call fails with a status, and that the message has a word in it. */
#define FAILS(status, word, call)                                                                                        \
    do {                                                                                                                 \
        char message_[1024];                                                                                             \
        CHECK((call) == (status));                                                                                       \
        OK(sj_last_error(NULL, message_, sizeof message_, NULL));                                                        \
        CHECK(strstr(message_, word) != NULL);                                                                           \
    } while (0)

/* A row-major tensor of up to two sides. */
static inline sj_tensor tensor_of(void *data, int32_t dtype, int32_t ndim, const int64_t *shape) {
    sj_tensor tensor;
    memset(&tensor, 0, sizeof tensor);
    tensor.data = data;
    tensor.dtype = dtype;
    tensor.ndim = ndim;
    tensor.shape = shape;
    return tensor;
}

/* The bytes of a file; `size` gets how many. */
static inline unsigned char *bytes_of(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    unsigned char *bytes;
    long length;
    CHECK(file != NULL && fseek(file, 0, SEEK_END) == 0);
    length = ftell(file);
    CHECK(length >= 0 && fseek(file, 0, SEEK_SET) == 0);
    bytes = malloc((size_t)length + 1);
    CHECK(bytes != NULL && fread(bytes, 1, (size_t)length, file) == (size_t)length);
    bytes[length] = 0;
    fclose(file);
    *size = (size_t)length;
    return bytes;
}

#endif
