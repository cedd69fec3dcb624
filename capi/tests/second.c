/*
Two copies of the library in one program: each works, and neither takes a handle of the other.
*/
#define _GNU_SOURCE /* dladdr */
#include <dlfcn.h>

#include "check.h"

typedef int32_t open_device(const char *name, uint64_t threads, sj_device **device);
typedef int32_t device_info(const sj_device *device, sj_device_info *info);
typedef int32_t free_device(sj_device *device);

/* A function of the copy; ISO C has no cast from an object to a function. */
static void find(void *copy, const char *name, void *function) {
    void *found = dlsym(copy, name);
    CHECK(found != NULL);
    memcpy(function, &found, sizeof found);
}

int main(int argc, char **argv) {
    char path[1024], from[4096];
    Dl_info own;
    size_t size;
    unsigned char *bytes;
    FILE *file;
    void *copy;
    open_device *open_other;
    device_info *info_other;
    free_device *free_other;
    sj_device *ours, *theirs;
    sj_device_info info = {.struct_size = sizeof info};
    CHECK(argc == 2);
    find(RTLD_DEFAULT, "sj_version", &copy);
    CHECK(dladdr(copy, &own) != 0);
    snprintf(from, sizeof from, "%s", own.dli_fname);
    bytes = bytes_of(from, &size);
    snprintf(path, sizeof path, "%s/copy.so", argv[1]);
    file = fopen(path, "wb");
    CHECK(file != NULL && fwrite(bytes, 1, size, file) == size && fclose(file) == 0);
    free(bytes);
    copy = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    CHECK(copy != NULL);
    find(copy, "sj_device_open", &open_other);
    find(copy, "sj_device_get_info", &info_other);
    find(copy, "sj_device_free", &free_other);
    CHECK(open_other != sj_device_open);
    OK(sj_device_open("cpu", 2, &ours));
    OK(open_other("cpu", 1, &theirs));
    OK(sj_device_get_info(ours, &info));
    CHECK(info.threads == 2);
    OK(info_other(theirs, &info));
    CHECK(info.threads == 1);
    FAILS(SJ_ERR_HANDLE, "never was", sj_device_get_info(theirs, &info));
    CHECK(info_other(ours, &info) == SJ_ERR_HANDLE);
    OK(sj_device_free(ours));
    OK(info_other(theirs, &info));
    OK(free_other(theirs));
    puts("second: two libraries in one program");
    return 0;
}
