/*
A model of texts: samples of token ids and masks, traces, copies with other tokens, and what is refused. The driver compares the results with the
command's.
*/
#include "world.h"

static void write_view(const char *name, const sj_tensor *view) {
    FILE *file = fopen(in(name), "wb");
    size_t count = (size_t)(view->shape[0] * view->shape[1]);
    CHECK(file != NULL && fwrite(view->data, sizeof(float), count, file) == count && fclose(file) == 0);
}

int main(int argc, char **argv) {
    const char *const ignore[1] = {"golden.*"};
    sj_model *bert;
    sj_model_options options;
    sj_model_info info = {.struct_size = sizeof info};
    sj_samples *texts, *refused;
    sj_samples_info about = {.struct_size = sizeof about};
    sj_observe_options copies;
    sj_trace *trace;
    sj_tensor ids, mask, y, view;
    size_t size, mask_size;
    int64_t *words, *attended, sides[2] = {3, 0};
    int32_t labels[3] = {0, 1, 2};
    float logits[3];
    const int64_t label_sides[1] = {3}, x_sides[2] = {1, 8}, logits_sides[2] = {1, 3};
    sj_tensor x = tensor_of(logits, SJ_F32, 2, x_sides), to = tensor_of(logits, SJ_F32, 2, logits_sides);
    open_world(argc, argv);
    words = (int64_t *)bytes_of(in("ids.i64"), &size), attended = (int64_t *)bytes_of(in("mask.i64"), &mask_size);
    sides[1] = (int64_t)(size / (3 * sizeof *words));
    OK(sj_model_options_init(&options, sizeof options));
    options.ignore = ignore, options.ignore_count = 1, options.tokens = (uint64_t)sides[1];
    OK(sj_model_open(in("bert"), &options, &bert));
    OK(sj_model_get_info(bert, &info));
    CHECK(info.tokens == (uint64_t)sides[1] && info.channels == 0 && info.classes == 3);
    options.channels = options.height = options.width = 1;
    {
        sj_model *none;
        FAILS(SJ_ERR_ARGUMENT, "not both", sj_model_open(in("bert"), &options, &none));
    }

    ids = tensor_of(words, SJ_I64, 2, sides), mask = tensor_of(attended, SJ_I64, 2, sides), y = tensor_of(labels, SJ_I32, 1, label_sides);
    OK(sj_samples_from_text(&ids, &mask, &y, &texts));
    OK(sj_samples_get_info(texts, &about));
    CHECK(about.tokens == info.tokens && about.count == 3 && about.channels == 0);
    OK(sj_samples_get_tensors(texts, &view, NULL));
    CHECK(view.dtype == SJ_U32 && view.ndim == 3 && view.shape[1] == 2 && ((uint32_t *)view.data)[0] == (uint32_t)words[0]);
    OK(sj_observe(device, bert, texts, NULL, &trace));
    OK(sj_trace_get_tensor(trace, SJ_TRACE_LOGITS, &view));
    write_view("text-logits.f32", &view);
    OK(sj_trace_free(trace));
    OK(sj_observe_options_init(&copies, sizeof copies));
    copies.copies = 20, copies.replace = 2, copies.seed = 5;
    OK(sj_observe(device, bert, texts, &copies, &trace));
    OK(sj_trace_get_tensor(trace, SJ_TRACE_ACTIVATIONS, &view));
    write_view("text-copies.f32", &view);
    OK(sj_trace_free(trace));

    copies.sigma = 0.1;
    FAILS(SJ_ERR_CONFIG, "--sigma is for images", sj_observe(device, bert, texts, &copies, &trace));
    FAILS(SJ_ERR_CONFIG, "the network takes", sj_observe(device, bert, train, NULL, &trace));
    FAILS(SJ_ERR_CONFIG, "the network takes", sj_observe(device, model, texts, NULL, &trace));
    FAILS(SJ_ERR_ARGUMENT, "reads texts", sj_forward(device, bert, &x, &to));
    attended[1] = 2;
    FAILS(SJ_ERR_CONFIG, "neither 0 nor 1", sj_samples_from_text(&ids, &mask, &y, &refused));
    words[2] = -1;
    FAILS(SJ_ERR_ARGUMENT, "sample 0, position 2 is -1", sj_samples_from_text(&ids, NULL, &y, &refused));
    words[2] = 1 << 20;
    OK(sj_samples_from_text(&ids, NULL, &y, &refused));
    FAILS(SJ_ERR_CONFIG, "sample 0", sj_observe(device, bert, refused, NULL, &trace)); /* beyond the vocabulary */
    OK(sj_samples_free(refused));
    sides[0] = 2;
    FAILS(SJ_ERR_SHAPE, "texts", sj_samples_from_text(&ids, NULL, &y, &refused));
    OK(sj_samples_free(texts));
    OK(sj_model_free(bert));
    free(words), free(attended);
    close_world();
    puts("text: as the header says");
    return 0;
}
