/*
scrubjay.hpp, with exceptions and with results: objects that end by themselves, spans, callbacks that throw, cancels. Without exceptions it
is built with -fno-exceptions.
*/
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>

#include "scrubjay.hpp"

static void check(bool good, const char *what) {
    if (good) return;
    std::fprintf(stderr, "hpp.cpp: %s; last message: %s\n", what, sj::Error::last(0).what());
    std::exit(1);
}
#define CHECK(condition) check(condition, #condition)

#if SCRUBJAY_NO_EXCEPTIONS
template <class T> static T take(sj::Result<T> result) {
    check(static_cast<bool>(result), "a result has a value");
    return std::move(*std::move(result));
}
static void take(sj::Result<void> result) { check(static_cast<bool>(result), "a result is good"); }
#define FAILS(status_, call)                                                                                             \
    do {                                                                                                                 \
        auto result_ = call;                                                                                             \
        CHECK(!result_ && result_.error().status() == (status_) && result_.error().what()[0] != 0);                      \
    } while (0)
#else
template <class T> static T take(T value) { return value; }
#define take(...) (__VA_ARGS__)
#define FAILS(status_, call)                                                                                             \
    do {                                                                                                                 \
        int32_t found_ = SJ_OK;                                                                                          \
        try {                                                                                                            \
            (void)(call);                                                                                                \
        } catch (const sj::Error &error) {                                                                               \
            found_ = error.status();                                                                                     \
            CHECK(error.what()[0] != 0 && std::strncmp(error.name(), "SJ_ERR_", 7) == 0);                                \
        }                                                                                                                \
        CHECK(found_ == (status_));                                                                                      \
    } while (0)
#endif

int main(int argc, char **argv) {
    CHECK(argc == 2);
    const std::string folder = argv[1];
    auto device = take(sj::Device::open("cpu", 2));
    CHECK(take(device.info()).threads == 2);
    FAILS(SJ_ERR_ARGUMENT, sj::Device::open("tpu"));
    FAILS(SJ_ERR_IO, sj::Model::open(folder + "/nowhere"));

    std::ifstream file(folder + "/model/model.safetensors", std::ios::binary);
    const std::vector<unsigned char> bytes{std::istreambuf_iterator<char>(file), {}};
    auto model = take(sj::Model::from_memory(bytes));
    auto info = take(model.info());
    CHECK(info.units == 19 && take(model.bytes()) == bytes);
    CHECK(take(model.find_unit(take(model.layer(1)).name, 2)) == 18);

    auto samples = take(sj::Samples::load(folder + "/train.safetensors", &model));
    auto validation = take(sj::Samples::load(folder + "/val.safetensors", &model));
    const uint32_t one_label[] = {0};
    std::vector<float> x(16), logits(6);
    take(model.forward(device, sj::Tensor(sj::Span<const float>(x), {2, 8}), sj::Tensor(sj::Span<float>(logits), {2, 3})));
    CHECK(std::memcmp(&logits[0], &logits[3], 3 * sizeof(float)) == 0);
    FAILS(SJ_ERR_ARGUMENT, model.forward(device, sj::Tensor(sj::Span<const float>(x), {3, 8}), sj::Tensor(sj::Span<float>(logits), {2, 3})));

    auto trace = take(sj::Trace::observe(device, model, samples));
    CHECK(take(trace.tensor(SJ_TRACE_ACTIVATIONS)).shape[1] == 19);
    const uint32_t units[] = {1, 17};
    auto block = take(sj::Block::of(model, sj::Span<const uint32_t>(units)));
    FAILS(SJ_ERR_ARGUMENT, sj::Block::of(model, {}));
    const auto p = static_cast<int64_t>(take(block.size()));
    std::vector<double> step(static_cast<size_t>(p)), gradient(step.size());
    auto curvature = take(sj::Curvature::of(device, block, samples));
    auto options = sj::solve_options();
    options.damping = 0.01;
    CHECK(take(curvature.solve(sj::Tensor(sj::Span<double>(step), {p}), nullptr, &options)).converged == 1);
    take(curvature.gradient(sj::Tensor(sj::Span<double>(gradient), {p})));
    CHECK(gradient[0] != 0 && step[0] != 0);

    {
        auto how = sj::train_options();
        how.epochs = 4;
        int passes = 0;
        sj::Callbacks each;
        each.progress = [&](const sj_progress &now) { return ++passes, now.batches == 4; };
        auto made = take(sj::train(device, "mlp:6", samples, &validation, &how, each));
        CHECK(passes == 4 && take(made.info()).units == 9 && take(made.inspection()).find("\"family\":\"mlp\"") != std::string::npos);
        auto more = take(sj::train(device, made, samples, nullptr, &how));
        CHECK(take(sj::evaluate(device, more, samples)).samples == 150 && take(more.bytes()) != take(made.bytes()));
        each.progress = [](const sj_progress &) { return false; };
        FAILS(SJ_ERR_INTERRUPTED, sj::train(device, "mlp:6", samples, nullptr, &how, each));
        auto of_files = sj::files();
        const std::string data = folder + "/train.safetensors";
        of_files.arch = "mlp:6", of_files.data = data.c_str();
        take(sj::train(device, of_files, folder + "/out-hpp-trained", &how));
        CHECK(take(take(sj::Model::open(folder + "/out-hpp-trained")).info()).units == 9);
        CHECK(take(samples.inspection(true)).find("samples     150") == 0);
        CHECK(take(sj::devices()).find("\"cpu\"") != std::string::npos);
        std::ofstream(folder + "/hpp.csv") << "a,b\n1,2\n2,4\n3,5\n4,9\n5,9\n";
        auto table = take(sj::Table::load(folder + "/hpp.csv"));
        CHECK(take(table.info()).columns == 2 && std::strcmp(take(table.column(1)).name, "b") == 0);
        auto graph = take(sj::Graph::of(device, sj::Tensor(take(table.tensor())), {"a", "b"}));
        CHECK(take(graph.info()).columns == 2 && take(graph.dot()).find("\"b\"") != std::string::npos && take(graph.json()).find("edges") != std::string::npos);
        FAILS(SJ_ERR_ARGUMENT, sj::Graph::of(device, sj::Tensor(take(table.tensor())), {"a"}));
        FAILS(SJ_ERR_ARGUMENT, sj::Samples::from_strings(model, {"a text"}, sj::Tensor(sj::Span<const uint32_t>(one_label), {1})));
    }

    int calls = 0;
    bool go_on = true, throws = false;
    sj::Callbacks callbacks;
    callbacks.progress = [&](const sj_progress &) {
        ++calls;
#if !SCRUBJAY_NO_EXCEPTIONS
        if (throws) throw std::logic_error("from a callback");
#endif
        return go_on;
    };
    callbacks.log = [](bool, const char *message) { CHECK(message[0] != 0); };
    auto session = take(sj::Session::of(device, model, samples, &validation, callbacks));
    auto scrub = sj::scrub_options();
    scrub.perturbations = 40;
    scrub.stages = 2;
    const std::vector<uint64_t> forget{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
    auto request = take(session.select(forget, &scrub));
    auto outcome = take(request.scrub());
    CHECK(take(outcome.info()).removed + take(outcome.info()).not_removed == 12 && calls > 5);
    CHECK(take(outcome.report()).find("\"records\"") != std::string::npos);
    CHECK(take(outcome.receipt(0)).samples == 12);
    CHECK(take(outcome.page()).find("</html>") != std::string::npos && take(request.page()).find("12 samples to be removed") != std::string::npos);
    auto after = take(outcome.model());
    CHECK(take(after.bytes()).size() == bytes.size());
    {
        auto reference = take(sj::Model::open(folder + "/retrained/seed-1"));
        auto question = sj::verify_options();
        question.forget = "0-11";
        auto seen = take(sj::Verification::of(device, model, after, {&reference}, samples, validation, question));
        CHECK(take(seen.info()).references == 1 && take(seen.info()).notes > 0 && !take(seen.note(0)).empty());
        CHECK(std::strcmp(take(seen.measure(0)).name, "forget_accuracy") == 0 && take(seen.page()).find("forgotten?") != std::string::npos);
        CHECK(take(seen.report()).find("\"findings\"") != std::string::npos);
        FAILS(SJ_ERR_ARGUMENT, seen.flag(99));
        auto files = sj::files();
        const std::string before = folder + "/model", data = folder + "/train.safetensors";
        files.model = before.c_str(), files.data = data.c_str();
        int told = 0;
        sj::Callbacks each;
        each.progress = [&](const sj_progress &) { return ++told < 2; };
        FAILS(SJ_ERR_INTERRUPTED, sj::Verification::open(device, files, folder + "/retrained/seed-2", {folder + "/retrained/seed-1"},
                                                        folder + "/val.safetensors", question, each));
        CHECK(told == 2);
    }
    go_on = false;
    FAILS(SJ_ERR_INTERRUPTED, request.scrub());
    take(session.uncancel());
    go_on = true;
#if !SCRUBJAY_NO_EXCEPTIONS
    throws = true;
    bool caught = false;
    try {
        request.scrub();
    } catch (const std::logic_error &error) {
        caught = std::strcmp(error.what(), "from a callback") == 0;
    }
    CHECK(caught);
    throws = false;
    session.uncancel();
#endif
    (void)throws;
    auto moved = std::move(request);
    CHECK(request.get() == nullptr && moved.get() != nullptr);
    FAILS(SJ_ERR_CONFIG, session.select("class:9"));
    std::printf("hpp: %s\n", SCRUBJAY_NO_EXCEPTIONS ? "results" : "exceptions");
    return 0;
}
