/*
libcuda.so for cuda.c: a driver of two GPUs, of which the second has some memory. Its addresses are none of the host's, so that reading
one ends the program. A copy happens when its stream is waited for, and not before.
*/
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "driver.h"

enum { OK = 0, INVALID_VALUE = 1, INVALID_CONTEXT = 201, ILLEGAL_ADDRESS = 700 };

unsigned char driver_memory[DRIVER_SIZE];
int driver_contexts, driver_current, driver_waits;

static struct {
    void *host, *stream;
    uint64_t device;
    size_t bytes;
    int to_host;
} put;

int cuInit(unsigned flags) {
    (void)flags;
    return OK;
}
int cuDeviceGetCount(int *count) {
    *count = 2;
    return OK;
}
int cuDeviceGet(int *device, int ordinal) {
    *device = ordinal;
    return OK;
}
int cuDevicePrimaryCtxRetain(void **context, int device) {
    *context = driver_memory + device;
    ++driver_contexts;
    return OK;
}
int cuDevicePrimaryCtxRelease_v2(int device) {
    (void)device;
    --driver_contexts;
    return OK;
}
int cuCtxPushCurrent_v2(void *context) {
    ++driver_current;
    return context == driver_memory + 1 ? OK : INVALID_CONTEXT;
}
int cuCtxPopCurrent_v2(void **context) {
    *context = driver_memory + 1;
    --driver_current;
    return OK;
}
int cuPointerGetAttribute(void *value, int attribute, uint64_t address) {
    if (address < DRIVER_BASE || address >= DRIVER_BASE + DRIVER_SIZE) return INVALID_VALUE;
    switch (attribute) {
    case 2: *(unsigned *)value = 2; return OK; /* memory of a device */
    case 9: *(int *)value = 1; return OK;      /* the second */
    case 11: *(uint64_t *)value = DRIVER_BASE; return OK;
    case 12: *(size_t *)value = DRIVER_SIZE; return OK;
    default: return INVALID_VALUE;
    }
}
static int copy(void *host, uint64_t device, size_t bytes, void *stream, int to_host) {
    if (driver_current != 1 || driver_contexts != 1) return INVALID_CONTEXT;
    put.host = host, put.device = device, put.bytes = bytes, put.stream = stream, put.to_host = to_host;
    return OK;
}
int cuMemcpyDtoHAsync_v2(void *host, uint64_t device, size_t bytes, void *stream) { return copy(host, device, bytes, stream, 1); }
int cuMemcpyHtoDAsync_v2(uint64_t device, const void *host, size_t bytes, void *stream) {
    return copy((void *)(uintptr_t)host, device, bytes, stream, 0);
}
int cuStreamSynchronize(void *stream) {
    unsigned char *at = driver_memory + (put.device - DRIVER_BASE);
    if (stream == DRIVER_BROKEN) return ILLEGAL_ADDRESS;
    if (stream != put.stream) return INVALID_VALUE;
    if (put.to_host) memcpy(put.host, at, put.bytes);
    else memcpy(at, put.host, put.bytes);
    ++driver_waits;
    return OK;
}
int cuGetErrorName(int error, const char **text) {
    *text = error == ILLEGAL_ADDRESS ? "CUDA_ERROR_ILLEGAL_ADDRESS" : "an error";
    return OK;
}
int cuGetErrorString(int error, const char **text) { return cuGetErrorName(error, text); }
