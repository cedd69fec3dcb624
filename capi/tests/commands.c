/*
What `train`, `inspect`, `eval`, `devices` and `foci` do, by the C API: the driver compares what is written here with what the commands
write.
*/
#include <math.h>

#include "world.h"

static void write_text(const char *name, const char *text) {
    FILE *file = fopen(in(name), "w");
    CHECK(file != NULL && fputs(text, file) >= 0 && fclose(file) == 0);
}

/* What training told. */
struct told {
    int calls, cancel_at;
};

static int32_t on_progress(const sj_progress *progress, void *user) {
    struct told *told = user;
    CHECK(progress->phase == NULL && progress->done <= progress->batches);
    return ++told->calls == told->cancel_at;
}

static void training(void) {
    enum { EPOCHS = 60 };
    sj_train_options options;
    sj_callbacks callbacks;
    sj_files files;
    sj_epoch epochs[EPOCHS];
    sj_model *trained, *none;
    sj_saved saved = {.struct_size = sizeof saved};
    struct told told = {0, 0};
    char data[1024], val[1024];
    const uint64_t keep[1] = {2};
    snprintf(data, sizeof data, "%s", in("train.safetensors"));
    snprintf(val, sizeof val, "%s", in("val.safetensors"));
    OK(sj_train_options_init(&options, sizeof options));
    OK(sj_callbacks_init(&callbacks, sizeof callbacks));
    callbacks.progress = on_progress, callbacks.user = &told;
    options.epochs = EPOCHS, options.seed = 1;

    /* A new model in memory. */
    OK(sj_train(device, "mlp:16", NULL, train, NULL, &options, &callbacks, epochs, EPOCHS, &trained));
    CHECK(told.calls == EPOCHS && epochs[EPOCHS - 1].epoch == EPOCHS && epochs[EPOCHS - 1].loss < epochs[0].loss);
    CHECK(isnan(epochs[0].validation_loss) && epochs[1].seconds >= epochs[0].seconds);
    OK(sj_model_save(trained, in("saved-trained"), &saved));
    CHECK(saved.changed == 0);
    OK(sj_model_free(trained));

    /* The same in a folder, with validation data and one epoch kept. */
    OK(sj_files_init(&files, sizeof files));
    files.arch = "mlp:16", files.data = data, files.validation = val;
    options.epochs = 3, options.exclude = "0-29", options.keep_epochs = keep, options.keep_count = 1;
    OK(sj_train_run(device, &files, &options, NULL, in("out-trained"), epochs, EPOCHS));
    CHECK(epochs[2].epoch == 3 && epochs[2].validation_accuracy >= 0 && epochs[2].validation_accuracy <= 1);
    FAILS(SJ_ERR_ARGUMENT, "keep_epochs", sj_train(device, "mlp:16", NULL, train, NULL, &options, NULL, NULL, 0, &none));
    files.proxy = data;
    FAILS(SJ_ERR_ARGUMENT, "sj_files.proxy", sj_train_run(device, &files, &options, NULL, in("out-none"), NULL, 0));
    files.proxy = NULL, files.arch = NULL;
    FAILS(SJ_ERR_CONFIG, "says what to train", sj_train_run(device, &files, &options, NULL, in("out-none"), NULL, 0));
    files.arch = "mlp:none";
    FAILS(SJ_ERR_CONFIG, "no model that can be made", sj_train_run(device, &files, &options, NULL, in("out-none"), NULL, 0));

    /* A model that exists goes on. */
    OK(sj_train_options_init(&options, sizeof options));
    options.epochs = 2, options.seed = 5;
    OK(sj_train(device, NULL, model, train, validation, &options, NULL, NULL, 0, &trained));
    OK(sj_model_save(trained, in("saved-continued"), &saved));
    CHECK(saved.changed > 0);
    OK(sj_model_free(trained));

    FAILS(SJ_ERR_ARGUMENT, "both are NULL", sj_train(device, NULL, NULL, train, NULL, &options, NULL, NULL, 0, &none));
    FAILS(SJ_ERR_ARGUMENT, "one is NULL", sj_train(device, "mlp:4", model, train, NULL, &options, NULL, NULL, 0, &none));
    FAILS(SJ_ERR_BUFFER, "1 places for the 2 epochs", sj_train(device, "mlp:4", NULL, train, NULL, &options, NULL, epochs, 1, &none));
    told.calls = 0, told.cancel_at = 2, options.epochs = 9;
    FAILS(SJ_ERR_INTERRUPTED, "interrupted", sj_train(device, "mlp:4", NULL, train, NULL, &options, &callbacks, NULL, 0, &none));
    CHECK(told.calls == 2 && none == NULL);
    options.lr = -1;
    FAILS(SJ_ERR_CONFIG, "--lr -1", sj_train(device, "mlp:4", NULL, train, NULL, &options, NULL, NULL, 0, &none));
    options.lr = NAN, options.exclude = "0-149";
    FAILS(SJ_ERR_CONFIG, "leaves no samples", sj_train(device, "mlp:4", NULL, train, NULL, &options, NULL, NULL, 0, &none));
    options.exclude = NULL, options.optimizer = "none";
    FAILS(SJ_ERR_ARGUMENT, "optimizer", sj_train(device, "mlp:4", NULL, train, NULL, &options, NULL, NULL, 0, &none));
}

static void inspection(void) {
    const char *json, *text, *again;
    char devices[4096];
    size_t needed;
    sj_scores scores = {.struct_size = sizeof scores};
    sj_class_score classes[3];
    uint64_t right = 0;
    int i;
    char line[256];
    OK(sj_model_get_inspection(model, NULL, &json, &text));
    write_text("c-inspect.json", json);
    OK(sj_model_get_inspection(model, "f32", NULL, NULL));
    OK(sj_model_get_inspection(model, NULL, &again, NULL));
    CHECK(again == json && strstr(text, "family      mlp\n") != NULL);
    FAILS(SJ_ERR_ARGUMENT, "precision", sj_model_get_inspection(model, "f8", &json, NULL));
    OK(sj_samples_get_inspection(train, &json, &text));
    write_text("c-inspect-data.json", json);
    CHECK(strstr(text, "samples     150\n") != NULL);
    FAILS(SJ_ERR_CONFIG, "--index 150", sj_samples_write_image(train, 150, in("none.png")));

    OK(sj_evaluate(device, model, validation, &scores, classes, 3));
    for (i = 0; i < 3; ++i) right += classes[i].correct;
    CHECK(scores.samples == 60 && scores.correct == right && classes[0].samples == 20);
    snprintf(line, sizeof line, "%d %.17g %.17g\n", (int)scores.correct, scores.accuracy, scores.loss);
    write_text("c-eval.txt", line);
    FAILS(SJ_ERR_BUFFER, "2 places for 3 classes", sj_evaluate(device, model, validation, &scores, classes, 2));

    OK(sj_devices(devices, sizeof devices, &needed));
    CHECK(strlen(devices) + 1 == needed && strstr(devices, "\"threads\"") != NULL);
    FAILS(SJ_ERR_BUFFER, "3 bytes", sj_devices(devices, 3, &needed));
}

static int32_t at_once(const sj_progress *progress, void *user) {
    (void)progress, (void)user;
    return 1;
}

static void tables(void) {
    sj_table *table, *none;
    sj_table_options options;
    sj_table_info info = {.struct_size = sizeof info};
    sj_table_column column = {.struct_size = sizeof column};
    sj_tensor data, y, x;
    int64_t x_sides[2], y_sides[1];
    sj_foci_options selection;
    sj_foci_step steps[4];
    sj_graph *graph;
    sj_graph_info about = {.struct_size = sizeof about};
    sj_callbacks callbacks;
    uint64_t found;
    const char *names[4] = {"a", "b", "kind", "y"}, *categorical[1] = {"kind:onehot"}, *stopped, *text, *chosen[4];
    char *svg;
    size_t needed;
    int i;
    FILE *file = fopen(in("cells.csv"), "w");
    CHECK(file != NULL);
    fprintf(file, "a;b;kind;y\n");
    for (i = 0; i < 90; ++i)
        fprintf(file, "%d,5;%d;%s;%d\n", i * 37 % 90, i * 13 % 89, i % 3 == 0 ? "red" : "blue", (i * 13 % 89 - 40) * (i % 3 == 0 ? 1 : -1));
    fprintf(file, "7;;red;1\n");
    CHECK(fclose(file) == 0);
    OK(sj_table_options_init(&options, sizeof options));
    options.categorical = categorical, options.categorical_count = 1;
    FAILS(SJ_ERR_CONFIG, "no column", sj_table_load(in("cells.csv"), "y,colour", &options, &none));
    FAILS(SJ_ERR_DATA, "--missing omit", sj_table_load(in("cells.csv"), "y,a,b,kind", &options, &none));
    options.missing = "omit";
    OK(sj_table_load(in("cells.csv"), "y,a,b,kind", &options, &table));
    OK(sj_table_get_info(table, &info));
    CHECK(info.rows == 90 && info.omitted == 1 && info.columns == 5 && info.sources == 4 && strstr(info.note, "`;`") != NULL);
    OK(sj_table_get_column(table, 4, &column));
    CHECK(strcmp(column.name, "kind") == 0 && column.source == 3);
    FAILS(SJ_ERR_ARGUMENT, "column 5 of 5", sj_table_get_column(table, 5, &column));
    OK(sj_table_get_tensor(table, &data));
    CHECK(data.dtype == SJ_F64 && data.ndim == 2 && ((double *)data.data)[data.strides[1]] == 0.5);

    /* The first column is y; those of one category are chosen together. */
    x_sides[0] = y_sides[0] = data.shape[0], x_sides[1] = data.shape[1] - 1;
    y = x = data;
    y.ndim = 1, y.shape = y_sides, x.shape = x_sides, x.data = (double *)data.data + data.strides[1];
    OK(sj_foci_options_init(&selection, sizeof selection));
    {
        uint64_t of_columns[4];
        for (i = 1; i < 5; ++i) {
            OK(sj_table_get_column(table, (uint64_t)i, &column));
            of_columns[i - 1] = column.source - 1;
        }
        selection.groups = of_columns;
        OK(sj_foci(device, &y, &x, &selection, steps, 3, &found, &stopped));
    }
    CHECK(found > 0);
    for (i = 0; i < (int)found; ++i) chosen[i] = names[steps[i].column];
    OK(sj_foci_plot(steps, chosen, found, stopped, NULL, 0, &needed));
    svg = malloc(needed);
    CHECK(svg != NULL);
    OK(sj_foci_plot(steps, chosen, found, stopped, svg, needed, NULL));
    write_text("c-steps.svg", svg);
    FAILS(SJ_ERR_BUFFER, "bytes for a text", sj_foci_plot(steps, chosen, found, stopped, svg, needed - 1, NULL));
    FAILS(SJ_ERR_ARGUMENT, "no reason", sj_foci_plot(steps, chosen, found, "tired", svg, needed, NULL));
    free(svg);
    OK(sj_table_free(table));

    /* The graph of all columns, then of the file of finished ones, then cancelled. */
    *categorical = "kind";
    OK(sj_table_load(in("cells.csv"), NULL, &options, &table));
    OK(sj_table_get_tensor(table, &data));
    OK(sj_foci_graph(device, &data, names, NULL, in("out-graph.jsonl"), NULL, &graph));
    OK(sj_graph_get_info(graph, &about));
    CHECK(about.columns == 4 && about.edges > 0 && about.interrupted == 0);
    OK(sj_graph_get_json(graph, &text));
    write_text("c-graph.json", text);
    OK(sj_graph_get_dot(graph, &text));
    write_text("c-graph.dot", text);
    OK(sj_graph_get_blanket(graph, 3, steps, 4, &found, &stopped));
    CHECK(found > 0 && steps[0].column < 3 && stopped != NULL);
    FAILS(SJ_ERR_ARGUMENT, "column 4 of 4", sj_graph_get_blanket(graph, 4, steps, 4, &found, NULL));
    FAILS(SJ_ERR_BUFFER, "0 places", sj_graph_get_blanket(graph, 3, steps, 0, &found, NULL));
    OK(sj_graph_free(graph));
    OK(sj_callbacks_init(&callbacks, sizeof callbacks));
    callbacks.progress = at_once;
    OK(sj_foci_graph(device, &data, names, NULL, in("out-graph.jsonl"), &callbacks, &graph));
    OK(sj_graph_get_info(graph, &about));
    CHECK(about.interrupted == 0); /* nothing was left to search */
    OK(sj_graph_free(graph));
    selection.groups = NULL, selection.seed = 9;
    FAILS(SJ_ERR_CONFIG, "other values or options", sj_foci_graph(device, &data, names, &selection, in("out-graph.jsonl"), NULL, &graph));
    OK(sj_table_free(table));
}

/* Texts by the tokenizer beside the model are those that are read of a file. */
static void words(void) {
    const char *texts[3] = {"a small cat", "the dog and the cat", "green"};
    int32_t labels[3] = {0, 1, 0};
    const int64_t sides[1] = {3};
    sj_tensor y = tensor_of(labels, SJ_I32, 1, sides), ours, theirs;
    sj_model *reader;
    sj_samples *made, *read, *none;
    sj_data_options options;
    sj_scores scores = {.struct_size = sizeof scores};
    FILE *file = fopen(in("three.csv"), "w");
    int i;
    CHECK(file != NULL);
    fprintf(file, "text,label\n");
    for (i = 0; i < 3; ++i) fprintf(file, "%s,%d\n", texts[i], (int)labels[i]);
    CHECK(fclose(file) == 0);
    OK(sj_model_open(in("words"), NULL, &reader));
    OK(sj_samples_load(in("three.csv"), reader, NULL, &read));
    OK(sj_samples_from_strings(reader, texts, 3, &y, NULL, &made));
    OK(sj_samples_get_tensors(made, &ours, NULL));
    OK(sj_samples_get_tensors(read, &theirs, NULL));
    CHECK(ours.shape[0] == 3 && ours.shape[2] == 16 && theirs.shape[2] < 16); /* as many as the model takes */
    for (i = 0; i < 6; ++i) { /* ids and mask of each */
        const uint32_t *of = (uint32_t *)ours.data + i * ours.shape[2], *same = (uint32_t *)theirs.data + i * theirs.shape[2];
        CHECK(memcmp(of, same, (size_t)theirs.shape[2] * sizeof *of) == 0 && of[15] == 0);
    }
    OK(sj_evaluate(device, reader, made, &scores, NULL, 0));
    CHECK(scores.samples == 3 && scores.loss > 0);
    OK(sj_samples_free(made));
    OK(sj_samples_free(read));
    OK(sj_data_options_init(&options, sizeof options));
    options.max_tokens = 3;
    OK(sj_samples_from_strings(reader, texts, 3, &y, &options, &made));
    OK(sj_samples_get_tensors(made, &ours, NULL));
    CHECK(((uint32_t *)ours.data)[2] != 0 && ((uint32_t *)ours.data)[3] == 0);
    OK(sj_samples_free(made));
    options.tokenizer = in("nowhere");
    FAILS(SJ_ERR_IO, "nowhere", sj_samples_from_strings(reader, texts, 3, &y, &options, &none));
    FAILS(SJ_ERR_ARGUMENT, "reads images", sj_samples_from_strings(model, texts, 3, &y, NULL, &none));
    OK(sj_model_free(reader));
}

int main(int argc, char **argv) {
    open_world(argc, argv);
    training();
    inspection();
    tables();
    words();
    close_world();
    puts("commands: as the header says");
    return 0;
}
