/*
Tensors on a GPU: read and written behind the stream that they name, by the driver of driver.c. Results are those of tensors of the host, bit
for bit.
*/
#include "dlpack.h"
#include "driver.h"
#include "world.h"

enum { ROWS = 5, INPUTS = 8, CLASSES = 3 };
static void *const stream = (void *)0x10;

/* A tensor at an offset in the memory of the GPU. */
static sj_tensor on_gpu(size_t offset, int32_t dtype, int32_t ndim, const int64_t *shape) {
    sj_tensor tensor = tensor_of((void *)(uintptr_t)(DRIVER_BASE + offset), dtype, ndim, shape);
    tensor.device = SJ_CUDA, tensor.device_index = 1, tensor.stream = stream;
    return tensor;
}

static void forward(void) {
    float x[ROWS * INPUTS], expected[ROWS * CLASSES], gap;
    const int64_t sides[2] = {ROWS, INPUTS}, out_sides[2] = {ROWS, CLASSES}, wide[2] = {CLASSES + 1, 1};
    DLManagedTensorVersioned dlpack;
    sj_tensor from, to;
    int i, row;
    for (i = 0; i < ROWS * INPUTS; ++i) x[i] = (float)(i * 5 % 7) - 3;
    from = tensor_of(x, SJ_F32, 2, sides), to = tensor_of(expected, SJ_F32, 2, out_sides);
    OK(sj_forward(device, model, &from, &to));

    memcpy(driver_memory + 64, x, sizeof x);
    memset(&dlpack, 0, sizeof dlpack);
    dlpack.version.major = 1, dlpack.dl_tensor.byte_offset = 64;
    dlpack.dl_tensor.data = (void *)(uintptr_t)DRIVER_BASE;
    dlpack.dl_tensor.device.device_type = 2, dlpack.dl_tensor.device.device_id = 1;
    dlpack.dl_tensor.ndim = 2, dlpack.dl_tensor.shape = (int64_t *)sides;
    dlpack.dl_tensor.dtype.code = 2, dlpack.dl_tensor.dtype.bits = 32, dlpack.dl_tensor.dtype.lanes = 1;
    OK(sj_tensor_from_dlpack(&dlpack, 0, &from));
    CHECK(from.device == SJ_CUDA && from.device_index == 1);
    from.stream = stream;
    to = on_gpu(1024, SJ_F32, 2, out_sides);
    OK(sj_forward(device, model, &from, &to));
    CHECK(memcmp(driver_memory + 1024, expected, sizeof expected) == 0 && driver_waits == 2);

    /* Rows apart: what lies between them stays. */
    for (i = 0; i < ROWS * (CLASSES + 1); ++i) memcpy(driver_memory + 2048 + 4 * i, &(float){-7}, 4);
    to = on_gpu(2048, SJ_F32, 2, out_sides), to.strides = wide;
    OK(sj_forward(device, model, &from, &to));
    for (row = 0; row < ROWS; ++row) {
        CHECK(memcmp(driver_memory + 2048 + 16 * row, expected + CLASSES * row, 12) == 0);
        memcpy(&gap, driver_memory + 2048 + 16 * row + 12, 4);
        CHECK(gap == -7);
    }

    to = on_gpu(DRIVER_SIZE - 16, SJ_F32, 2, out_sides);
    FAILS(SJ_ERR_CONFIG, "has 16 from there on", sj_forward(device, model, &from, &to));
    to = on_gpu(1024, SJ_F32, 2, out_sides), to.data = expected;
    FAILS(SJ_ERR_CONFIG, "driver does not know it", sj_forward(device, model, &from, &to));
    to = on_gpu(1024, SJ_F32, 2, out_sides), to.device_index = 0;
    FAILS(SJ_ERR_CONFIG, "is on GPU 1, and is described as on GPU 0", sj_forward(device, model, &from, &to));
    to.device_index = 7;
    FAILS(SJ_ERR_CONFIG, "the driver shows 2", sj_forward(device, model, &from, &to));
    to.device_index = 1, to.stream = DRIVER_BROKEN;
    FAILS(SJ_ERR_DEVICE, "ILLEGAL_ADDRESS", sj_forward(device, model, &from, &to));
    from.stream = DRIVER_BROKEN, to.stream = stream;
    FAILS(SJ_ERR_DEVICE, "ILLEGAL_ADDRESS", sj_forward(device, model, &from, &to));
}

static void samples_and_columns(void) {
    sj_tensor x, y, again, columns, target;
    sj_samples *made, *copied;
    sj_samples_info info = {.struct_size = sizeof info};
    const int64_t sides[2] = {ROWS, INPUTS}, label_sides[1] = {ROWS}, table[2] = {40, 3}, one[1] = {40};
    const uint64_t z = 1;
    int64_t labels[ROWS] = {0, 2, 1, 1, 0};
    float values[ROWS * INPUTS], cells[40 * 3];
    double outcome[40];
    sj_codec_result host = {.struct_size = sizeof host}, gpu = {.struct_size = sizeof gpu};
    int i;
    for (i = 0; i < ROWS * INPUTS; ++i) values[i] = (float)i / 3;
    memcpy(driver_memory, values, sizeof values);
    memcpy(driver_memory + 512, labels, sizeof labels);
    x = on_gpu(0, SJ_F32, 2, sides), y = on_gpu(512, SJ_I64, 1, label_sides);
    OK(sj_samples_new(&x, &y, &made));
    x = tensor_of(values, SJ_F32, 2, sides), y = tensor_of(labels, SJ_I64, 1, label_sides);
    OK(sj_samples_new(&x, &y, &copied));
    OK(sj_samples_get_info(made, &info));
    CHECK(info.count == ROWS);
    OK(sj_samples_get_tensors(made, &x, &y));
    OK(sj_samples_get_tensors(copied, &again, &target));
    CHECK(memcmp(x.data, again.data, sizeof values) == 0 && memcmp(y.data, target.data, 4 * ROWS) == 0);
    OK(sj_samples_free(made));
    OK(sj_samples_free(copied));

    for (i = 0; i < 40; ++i) {
        cells[3 * i] = (float)(i * 7 % 11), cells[3 * i + 1] = (float)(i * 3 % 40), cells[3 * i + 2] = (float)i;
        outcome[i] = cells[3 * i + 1] * cells[3 * i + 1];
    }
    memcpy(driver_memory + 1024, cells, sizeof cells);
    memcpy(driver_memory + 4096, outcome, sizeof outcome);
    target = tensor_of(outcome, SJ_F64, 1, one), columns = tensor_of(cells, SJ_F32, 2, table);
    OK(sj_codec(device, &target, &columns, &z, 1, NULL, 0, NULL, &host));
    target = on_gpu(4096, SJ_F64, 1, one), columns = on_gpu(1024, SJ_F32, 2, table);
    OK(sj_codec(device, &target, &columns, &z, 1, NULL, 0, NULL, &gpu));
    CHECK(memcmp(&host, &gpu, sizeof host) == 0);
}

int main(int argc, char **argv) {
    open_world(argc, argv);
    forward();
    samples_and_columns();
    CHECK(driver_contexts == 0 && driver_current == 0); /* the thread's own context is as it was */
    close_world();
    puts("cuda: tensors on a GPU, behind their streams");
    return 0;
}
