/*
DLPack in and out: views without copies, deleters called once, read-only marks, other devices and versions.
*/
#include "check.h"
#include "dlpack.h"
int main(int argc, char **argv) {
    char path[1024];
    float x[2 * 8 + 1], logits[2][6];
    int64_t sides[2] = {2, 8}, out_sides[2] = {2, 3};
    DLManagedTensorVersioned in, *out;
    sj_tensor view, direct, to;
    sj_device *device;
    sj_model *model;
    sj_samples *samples;
    sj_trace *trace;
    int i;
    CHECK(argc == 2);
    OK(sj_device_open("cpu", 1, &device));
    snprintf(path, sizeof path, "%s/model", argv[1]);
    OK(sj_model_open(path, NULL, &model));
    for (i = 0; i < 17; ++i) x[i] = (float)(i * 5 % 7) - 3;
    memset(&in, 0, sizeof in);
    in.version.major = 1, in.version.minor = 9;
    in.dl_tensor.data = x, in.dl_tensor.device.device_type = 1, in.dl_tensor.ndim = 2, in.dl_tensor.shape = sides;
    in.dl_tensor.dtype.code = 2, in.dl_tensor.dtype.bits = 32, in.dl_tensor.dtype.lanes = 1;
    in.dl_tensor.byte_offset = sizeof *x;
    OK(sj_tensor_from_dlpack(&in, 1, &view));
    CHECK(view.data == x + 1 && view.strides == NULL && view.shape == sides && view.dtype == SJ_F32); /* no copy */
    direct = tensor_of(x + 1, SJ_F32, 2, sides);
    to = tensor_of(logits[0], SJ_F32, 2, out_sides);
    OK(sj_forward(device, model, &view, &to));
    to.data = logits[1];
    OK(sj_forward(device, model, &direct, &to));
    CHECK(memcmp(logits[0], logits[1], sizeof logits[0]) == 0);

    in.flags = 1;
    OK(sj_tensor_from_dlpack(&in, 0, &view));
    FAILS(SJ_ERR_ARGUMENT, "read-only", sj_tensor_from_dlpack(&in, 1, &view));
    in.dl_tensor.device.device_type = 10; /* ROCm */
    FAILS(SJ_ERR_UNSUPPORTED, "copy it to one of these", sj_tensor_from_dlpack(&in, 0, &view));
    in.dl_tensor.device.device_type = 2, in.dl_tensor.device.device_id = 3; /* cuda.c reads such ones */
    OK(sj_tensor_from_dlpack(&in, 0, &view));
    CHECK(view.device == SJ_CUDA && view.device_index == 3 && view.stream == NULL && view.data == x + 1);
    in.dl_tensor.device.device_id = 0;
    in.dl_tensor.device.device_type = 3;
    OK(sj_tensor_from_dlpack(&in, 0, &view));
    in.version.major = 2;
    FAILS(SJ_ERR_UNSUPPORTED, "version 2", sj_tensor_from_dlpack(&in, 0, &view));
    in.version.major = 1, in.dl_tensor.dtype.lanes = 4;
    FAILS(SJ_ERR_UNSUPPORTED, "lanes", sj_tensor_from_dlpack(&in, 0, &view));
    in.dl_tensor.dtype.lanes = 1, in.dl_tensor.byte_offset = UINT64_MAX;
    FAILS(SJ_ERR_ARGUMENT, "byte_offset", sj_tensor_from_dlpack(&in, 0, &view));
    in.dl_tensor.byte_offset = 0, in.dl_tensor.shape = NULL;
    FAILS(SJ_ERR_NULL, "shape", sj_tensor_from_dlpack(&in, 0, &view));

    /* Out: read-only, without a copy, and alive after the handle. */
    snprintf(path, sizeof path, "%s/train.safetensors", argv[1]);
    OK(sj_samples_load(path, model, NULL, &samples));
    OK(sj_samples_get_tensors(samples, &view, NULL));
    OK(sj_samples_to_dlpack(samples, &out));
    CHECK(out->version.major == 1 && out->flags == 1 && out->dl_tensor.data == view.data && out->dl_tensor.ndim == 4);
    OK(sj_observe(device, model, samples, NULL, &trace));
    OK(sj_samples_free(samples));
    {
        float *values = (float *)out->dl_tensor.data, sum = 0;
        for (i = 0; i < out->dl_tensor.shape[0]; ++i) sum += values[i * out->dl_tensor.strides[0]];
        CHECK(sum == sum);
    }
    out->deleter(out);
    OK(sj_trace_get_tensor(trace, SJ_TRACE_ACTIVATIONS, &view));
    OK(sj_trace_to_dlpack(trace, SJ_TRACE_ACTIVATIONS, &out));
    CHECK(out->dl_tensor.data == view.data && out->dl_tensor.shape[1] == view.shape[1]);
    OK(sj_trace_free(trace));
    OK(sj_tensor_from_dlpack(out, 0, &view)); /* and in again */
    CHECK(view.data == out->dl_tensor.data);
    out->deleter(out);
    OK(sj_model_free(model));
    OK(sj_device_free(device));
    puts("dlpack: views without copies");
    return 0;
}
