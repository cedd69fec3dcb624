/*
scrubjay.hpp: the C API (scrubjay.h, which is the manual) for C++17, in this header alone.

Objects end by themselves (sj::Model, sj::Session, ..), are moved and not copied, and share what they need. Lists are passed as
sj::Span, which a vector, an array or a pointer with a length becomes by itself.

Failures. A call that fails throws sj::Error, which has the status and the message. With SCRUBJAY_NO_EXCEPTIONS defined as 1, every call
returns an sj::Result instead, which has a value or an Error:

    sj::Device device = sj::Device::open("auto");                                   // throws
    sj::Result<sj::Device> device = sj::Device::open("auto");                       // SCRUBJAY_NO_EXCEPTIONS
    if (!device) return device.error().what();

Callbacks are std::function. An exception that leaves one cancels the run, and is thrown again by the call that ran it.
*/
#ifndef SCRUBJAY_HPP
#define SCRUBJAY_HPP

#include <array>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "scrubjay.h"

#ifndef SCRUBJAY_NO_EXCEPTIONS
#define SCRUBJAY_NO_EXCEPTIONS 0
#endif

namespace sj {

/* A failed call. */
class Error : public std::runtime_error {
  public:
    Error(int32_t status, const std::string &message) : std::runtime_error(message), status_(status) {}
    /* One of SJ_ERR_.. */
    int32_t status() const noexcept { return status_; }
    /* Its name, as "SJ_ERR_CONFIG". */
    const char *name() const noexcept {
        const char *name = "";
        return sj_status_name(status_, &name) == SJ_OK ? name : "";
    }

    /* The last failed call of this thread. */
    static Error last(int32_t status) {
        std::string text;
        size_t needed = 0;
        if (sj_last_error(nullptr, nullptr, 0, &needed) == SJ_OK && needed > 1) {
            text.resize(needed);
            sj_last_error(nullptr, text.data(), text.size(), nullptr);
            text.pop_back();
        }
        return Error(status, text);
    }

  private:
    int32_t status_;
};

#if SCRUBJAY_NO_EXCEPTIONS
/* A value, or why there is none. */
template <class T> class Result {
  public:
    Result(T value) : value_(std::move(value)) {}
    Result(Error error) : error_(std::move(error)) {}
    explicit operator bool() const noexcept { return value_.has_value(); }
    T &operator*() & noexcept { return *value_; }
    T &&operator*() && noexcept { return std::move(*value_); }
    T *operator->() noexcept { return &*value_; }
    const Error &error() const noexcept { return *error_; }

  private:
    std::optional<T> value_;
    std::optional<Error> error_;
};

template <> class Result<void> {
  public:
    Result() = default;
    Result(Error error) : error_(std::move(error)) {}
    explicit operator bool() const noexcept { return !error_.has_value(); }
    const Error &error() const noexcept { return *error_; }

  private:
    std::optional<Error> error_;
};
#else
template <class T> using Result = T;
#endif

/* A list that another owns. */
template <class T> class Span {
  public:
    constexpr Span() noexcept = default;
    constexpr Span(T *data, size_t size) noexcept : data_(data), size_(size) {}
    template <size_t N> constexpr Span(T (&array)[N]) noexcept : data_(array), size_(N) {}
    template <class List, class = decltype(std::declval<List &>().data())>
    constexpr Span(List &&list) noexcept : data_(list.data()), size_(list.size()) {}
    constexpr T *data() const noexcept { return data_; }
    constexpr size_t size() const noexcept { return size_; }
    constexpr bool empty() const noexcept { return size_ == 0; }
    constexpr T *begin() const noexcept { return data_; }
    constexpr T *end() const noexcept { return data_ + size_; }
    constexpr T &operator[](size_t i) const noexcept { return data_[i]; }

  private:
    T *data_ = nullptr;
    size_t size_ = 0;
};

namespace detail {

/* What a status becomes: nothing, or a failure. */
inline Result<void> done(int32_t status) {
#if SCRUBJAY_NO_EXCEPTIONS
    if (status != SJ_OK) return Error::last(status);
    return {};
#else
    if (status != SJ_OK) throw Error::last(status);
#endif
}

/* A value where the status is good. */
template <class T> Result<T> done(int32_t status, T value) {
#if SCRUBJAY_NO_EXCEPTIONS
    if (status != SJ_OK) return Error::last(status);
#else
    if (status != SJ_OK) throw Error::last(status);
#endif
    return value;
}

template <class T> struct Tag;
#define SJ_DETAIL_TYPE(type)                                                                                             \
    template <> struct Tag<sj_##type> {                                                                                  \
        static const char *name() { return #type; }                                                                      \
        static void free(sj_##type *handle) { sj_##type##_free(handle); }                                                \
    };
SJ_DETAIL_TYPE(device)
SJ_DETAIL_TYPE(model)
SJ_DETAIL_TYPE(samples)
SJ_DETAIL_TYPE(trace)
SJ_DETAIL_TYPE(block)
SJ_DETAIL_TYPE(curvature)
SJ_DETAIL_TYPE(session)
SJ_DETAIL_TYPE(request)
SJ_DETAIL_TYPE(outcome)
SJ_DETAIL_TYPE(verification)
SJ_DETAIL_TYPE(table)
SJ_DETAIL_TYPE(graph)
#undef SJ_DETAIL_TYPE

/* A handle that ends with its owner. */
template <class T> class Owner {
  public:
    Owner() noexcept = default;
    explicit Owner(T *handle) noexcept : handle_(handle) {}
    Owner(Owner &&other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
    Owner &operator=(Owner &&other) noexcept {
        std::swap(handle_, other.handle_);
        return *this;
    }
    ~Owner() { Tag<T>::free(handle_); }
    T *get() const noexcept { return handle_; }

  private:
    T *handle_ = nullptr;
};

/* A struct of results with its size set. */
template <class T> T sized() {
    T info{};
    info.struct_size = sizeof(T);
    return info;
}

/* A struct of options with its defaults. */
template <class T> T defaults(int32_t (*init)(T *, size_t)) {
    T options{};
    init(&options, sizeof options);
    return options;
}

} /* namespace detail */

/* The defaults of every kind of options. */
inline sj_model_options model_options() { return detail::defaults(sj_model_options_init); }
inline sj_data_options data_options() { return detail::defaults(sj_data_options_init); }
inline sj_observe_options observe_options() { return detail::defaults(sj_observe_options_init); }
inline sj_curvature_options curvature_options() { return detail::defaults(sj_curvature_options_init); }
inline sj_solve_options solve_options() { return detail::defaults(sj_solve_options_init); }
inline sj_session_options session_options() { return detail::defaults(sj_session_options_init); }
inline sj_verify_options verify_options() { return detail::defaults(sj_verify_options_init); }
inline sj_files files() { return detail::defaults(sj_files_init); }
inline sj_scrub_options scrub_options() { return detail::defaults(sj_scrub_options_init); }
inline sj_train_options train_options() { return detail::defaults(sj_train_options_init); }
inline sj_table_options table_options() { return detail::defaults(sj_table_options_init); }
inline sj_codec_options codec_options() { return detail::defaults(sj_codec_options_init); }
inline sj_foci_options foci_options() { return detail::defaults(sj_foci_options_init); }

namespace detail {
template <class T> struct TypeOf;
template <> struct TypeOf<float> { static constexpr int32_t value = SJ_F32; };
template <> struct TypeOf<double> { static constexpr int32_t value = SJ_F64; };
template <> struct TypeOf<int32_t> { static constexpr int32_t value = SJ_I32; };
template <> struct TypeOf<int64_t> { static constexpr int32_t value = SJ_I64; };
template <> struct TypeOf<uint32_t> { static constexpr int32_t value = SJ_U32; };
template <> struct TypeOf<uint8_t> { static constexpr int32_t value = SJ_U8; };
} /* namespace detail */

/* Values of yours with their shape, for the time of a call. */
class Tensor {
  public:
    /* Row-major. */
    template <class T> Tensor(Span<T> values, std::vector<int64_t> shape) : shape_(std::move(shape)) {
        int64_t count = 1;
        for (int64_t side : shape_) count *= side;
        /* A tensor of more elements than there are becomes one of a type that every function refuses. */
        bool fits = count >= 0 && static_cast<uint64_t>(count) <= values.size();
        set(const_cast<std::remove_const_t<T> *>(values.data()), fits ? detail::TypeOf<std::remove_const_t<T>>::value : -1);
    }
    /* With strides in elements; you answer for the elements being there. */
    template <class T>
    Tensor(T *data, std::vector<int64_t> shape, std::vector<int64_t> strides) : shape_(std::move(shape)), strides_(std::move(strides)) {
        set(const_cast<std::remove_const_t<T> *>(data), detail::TypeOf<std::remove_const_t<T>>::value);
    }
    /* Made by another. */
    explicit Tensor(const sj_tensor &tensor) : tensor_(tensor), borrowed_(true) {}

    /* For the C API; lives as long as this. */
    const sj_tensor *get() const {
        if (!borrowed_) {
            tensor_.ndim = static_cast<int32_t>(shape_.size());
            tensor_.shape = shape_.data();
            tensor_.strides = strides_.empty() ? nullptr : strides_.data();
        }
        return &tensor_;
    }

  private:
    void set(void *data, int32_t dtype) {
        tensor_.data = data;
        tensor_.dtype = dtype;
    }
    std::vector<int64_t> shape_, strides_;
    mutable sj_tensor tensor_{};
    bool borrowed_ = false;
};

class Device {
  public:
    /* "auto", "cpu" or "cuda", with this many threads; 0 is one a core. */
    static Result<Device> open(const std::string &name = "auto", uint64_t threads = 0) {
        sj_device *handle = nullptr;
        int32_t status = sj_device_open(name.c_str(), threads, &handle);
        return detail::done(status, Device(handle));
    }
    Result<sj_device_info> info() const {
        auto info = detail::sized<sj_device_info>();
        int32_t status = sj_device_get_info(get(), &info);
        return detail::done(status, info);
    }
    sj_device *get() const noexcept { return owner_.get(); }

  private:
    explicit Device(sj_device *handle) : owner_(handle) {}
    detail::Owner<sj_device> owner_;
};

class Model {
  public:
    /* Takes a handle of the C API. */
    explicit Model(sj_model *handle) : owner_(handle) {}
    static Result<Model> open(const std::string &path, const sj_model_options *options = nullptr) {
        sj_model *handle = nullptr;
        int32_t status = sj_model_open(path.c_str(), options, &handle);
        return detail::done(status, Model(handle));
    }
    /* The bytes of a .safetensors file, and the text of its config. */
    static Result<Model> from_memory(Span<const unsigned char> bytes, const std::optional<std::string> &config = std::nullopt,
                                     const sj_model_options *options = nullptr, const char *file_name = nullptr) {
        sj_model *handle = nullptr;
        const char *text = config ? config->c_str() : nullptr;
        int32_t status = sj_model_from_memory(bytes.data(), bytes.size(), text, file_name, options, &handle);
        return detail::done(status, Model(handle));
    }
    Result<sj_model_info> info() const {
        auto info = detail::sized<sj_model_info>();
        int32_t status = sj_model_get_info(get(), &info);
        return detail::done(status, info);
    }
    Result<sj_layer_info> layer(uint64_t number) const {
        auto info = detail::sized<sj_layer_info>();
        int32_t status = sj_model_get_layer(get(), number, &info);
        return detail::done(status, info);
    }
    Result<uint32_t> find_unit(const std::string &layer, uint64_t row) const {
        uint32_t unit = 0;
        int32_t status = sj_model_find_unit(get(), layer.c_str(), row, &unit);
        return detail::done(status, unit);
    }
    /* What is known of it, as JSON; as text: inspection(true). */
    Result<std::string> inspection(bool text = false) const {
        const char *json = "", *words = "";
        int32_t status = sj_model_get_inspection(get(), nullptr, &json, &words);
        return detail::done(status, std::string(text ? words : json));
    }
    Result<sj_saved> save(const std::string &folder) const {
        auto saved = detail::sized<sj_saved>();
        int32_t status = sj_model_save(get(), folder.c_str(), &saved);
        return detail::done(status, saved);
    }
    /* The bytes of the model's file `file`. */
    Result<std::vector<unsigned char>> bytes(uint64_t file = 0) const {
        size_t needed = 0;
        std::vector<unsigned char> bytes;
        int32_t status = sj_model_get_bytes(get(), file, nullptr, 0, &needed);
        if (status == SJ_OK) {
            bytes.resize(needed);
            status = sj_model_get_bytes(get(), file, bytes.data(), bytes.size(), nullptr);
        }
        return detail::done(status, std::move(bytes));
    }
    /* The logits [n, classes] of x [n, c, h, w] or [n, features]. */
    Result<void> forward(const Device &device, const Tensor &x, const Tensor &logits) const {
        return detail::done(sj_forward(device.get(), get(), x.get(), logits.get()));
    }
    sj_model *get() const noexcept { return owner_.get(); }

  private:
    detail::Owner<sj_model> owner_;
};

class Samples {
  public:
    static Result<Samples> copy(const Tensor &x, const Tensor &y) {
        sj_samples *handle = nullptr;
        int32_t status = sj_samples_new(x.get(), y.get(), &handle);
        return detail::done(status, Samples(handle));
    }
    /* Token ids [n, t], and their mask, or null where all are attended. */
    static Result<Samples> from_text(const Tensor &ids, const Tensor *mask, const Tensor &y) {
        sj_samples *handle = nullptr;
        int32_t status = sj_samples_from_text(ids.get(), mask ? mask->get() : nullptr, y.get(), &handle);
        return detail::done(status, Samples(handle));
    }
    /* Texts, by the tokenizer beside the model or that of the options. */
    static Result<Samples> from_strings(const Model &model, const std::vector<std::string> &texts, const Tensor &y,
                                        const sj_data_options *options = nullptr) {
        sj_samples *handle = nullptr;
        std::vector<const char *> list;
        for (const auto &text : texts) list.push_back(text.c_str());
        int32_t status = sj_samples_from_strings(model.get(), list.data(), list.size(), y.get(), options, &handle);
        return detail::done(status, Samples(handle));
    }
    /* What they hold, as JSON; as text: inspection(true). */
    Result<std::string> inspection(bool text = false) const {
        const char *json = "", *words = "";
        int32_t status = sj_samples_get_inspection(get(), &json, &words);
        return detail::done(status, std::string(text ? words : json));
    }
    static Result<Samples> load(const std::string &path, const Model *model = nullptr, const sj_data_options *options = nullptr) {
        sj_samples *handle = nullptr;
        int32_t status = sj_samples_load(path.c_str(), model ? model->get() : nullptr, options, &handle);
        return detail::done(status, Samples(handle));
    }
    Result<sj_samples_info> info() const {
        auto info = detail::sized<sj_samples_info>();
        int32_t status = sj_samples_get_info(get(), &info);
        return detail::done(status, info);
    }
    /* Views of inputs and labels, alive as long as this. */
    Result<std::pair<sj_tensor, sj_tensor>> tensors() const {
        std::pair<sj_tensor, sj_tensor> both{};
        int32_t status = sj_samples_get_tensors(get(), &both.first, &both.second);
        return detail::done(status, both);
    }
    sj_samples *get() const noexcept { return owner_.get(); }

  private:
    explicit Samples(sj_samples *handle) : owner_(handle) {}
    detail::Owner<sj_samples> owner_;
};

/* Accuracy and loss. */
inline Result<sj_scores> evaluate(const Device &device, const Model &model, const Samples &samples) {
    auto scores = detail::sized<sj_scores>();
    int32_t status = sj_evaluate(device.get(), model.get(), samples.get(), &scores, nullptr, 0);
    return detail::done(status, scores);
}

class Trace {
  public:
    static Result<Trace> observe(const Device &device, const Model &model, const Samples &samples,
                                 const sj_observe_options *options = nullptr) {
        sj_trace *handle = nullptr;
        int32_t status = sj_observe(device.get(), model.get(), samples.get(), options, &handle);
        return detail::done(status, Trace(handle));
    }
    /* A view of SJ_TRACE_ACTIVATIONS, _LOSSES or _LOGITS, alive as long as this. */
    Result<sj_tensor> tensor(int32_t part) const {
        sj_tensor view{};
        int32_t status = sj_trace_get_tensor(get(), part, &view);
        return detail::done(status, view);
    }
    sj_trace *get() const noexcept { return owner_.get(); }

  private:
    explicit Trace(sj_trace *handle) : owner_(handle) {}
    detail::Owner<sj_trace> owner_;
};

class Block {
  public:
    /* Of these units, in this order. */
    static Result<Block> of(const Model &model, Span<const uint32_t> units) {
        static const uint32_t none = 0; /* an empty list is refused, and not taken for all units */
        sj_block *handle = nullptr;
        int32_t status = sj_block_new(model.get(), units.empty() ? &none : units.data(), units.size(), &handle);
        return detail::done(status, Block(handle));
    }
    /* Of every unit. */
    static Result<Block> all(const Model &model) {
        sj_block *handle = nullptr;
        int32_t status = sj_block_new(model.get(), nullptr, 0, &handle);
        return detail::done(status, Block(handle));
    }
    Result<uint64_t> size() const {
        uint64_t size = 0;
        int32_t status = sj_block_get_size(get(), &size);
        return detail::done(status, size);
    }
    Result<void> values(const Tensor &out) const { return detail::done(sj_block_get_values(get(), out.get())); }
    Result<void> gradient(const Device &device, const Samples &samples, const Tensor &out) const {
        return detail::done(sj_block_get_gradient(device.get(), get(), samples.get(), out.get()));
    }
    sj_block *get() const noexcept { return owner_.get(); }

  private:
    explicit Block(sj_block *handle) : owner_(handle) {}
    detail::Owner<sj_block> owner_;
};

class Curvature {
  public:
    static Result<Curvature> of(const Device &device, const Block &block, const Samples &samples,
                                const sj_curvature_options *options = nullptr) {
        sj_curvature *handle = nullptr;
        int32_t status = sj_curvature_new(device.get(), block.get(), samples.get(), options, &handle);
        return detail::done(status, Curvature(handle));
    }
    Result<void> gradient(const Tensor &out) const { return detail::done(sj_curvature_get_gradient(get(), out.get())); }
    Result<void> product(const Tensor &v, const Tensor &hv) const {
        return detail::done(sj_curvature_product(get(), v.get(), hv.get()));
    }
    /* Without b it is the gradient. */
    Result<sj_solve_report> solve(const Tensor &x, const Tensor *b = nullptr, const sj_solve_options *options = nullptr) const {
        auto report = detail::sized<sj_solve_report>();
        int32_t status = sj_curvature_solve(get(), b ? b->get() : nullptr, x.get(), options, &report);
        return detail::done(status, report);
    }
    sj_curvature *get() const noexcept { return owner_.get(); }

  private:
    explicit Curvature(sj_curvature *handle) : owner_(handle) {}
    detail::Owner<sj_curvature> owner_;
};

/* What a session calls, in the thread of the call that runs. */
struct Callbacks {
    /* Returns whether to go on. */
    std::function<bool(const sj_progress &)> progress;
    /* A message; whether it is a warning. */
    std::function<void(bool, const char *)> log;
};

namespace detail {

/* Callbacks, and the exception that left one. */
struct Hooks {
    Callbacks callbacks;
    std::mutex mutex;
    std::exception_ptr thrown;

    template <class Call> bool guarded(Call call) {
#if SCRUBJAY_NO_EXCEPTIONS
        return call();
#else
        try {
            return call();
        } catch (...) {
            std::lock_guard<std::mutex> lock(mutex);
            thrown = std::current_exception();
            return false;
        }
#endif
    }
    static int32_t on_progress(const sj_progress *progress, void *user) {
        auto *hooks = static_cast<Hooks *>(user);
        return hooks->guarded([&] { return !hooks->callbacks.progress || hooks->callbacks.progress(*progress); }) && !hooks->failed() ? 0 : 1;
    }
    static void on_log(int32_t level, const char *message, void *user) {
        auto *hooks = static_cast<Hooks *>(user);
        hooks->guarded([&] {
            if (hooks->callbacks.log) hooks->callbacks.log(level == 1, message);
            return true;
        });
    }
    bool failed() {
        std::lock_guard<std::mutex> lock(mutex);
        return thrown != nullptr;
    }
    /* Throws what left a callback. */
    void rethrow() {
        std::exception_ptr taken;
        {
            std::lock_guard<std::mutex> lock(mutex);
            taken = std::exchange(thrown, nullptr);
        }
#if !SCRUBJAY_NO_EXCEPTIONS
        if (taken) std::rethrow_exception(taken);
#endif
    }
    sj_callbacks table() {
        auto table = defaults(sj_callbacks_init);
        table.progress = on_progress;
        table.log = on_log;
        table.user = this;
        return table;
    }
};

} /* namespace detail */

/* Trains a new model of a description, as "mlp:100"; the progress of the callbacks is told after every epoch. */
inline Result<Model> train(const Device &device, const std::string &arch, const Samples &samples, const Samples *validation = nullptr,
                           const sj_train_options *options = nullptr, Callbacks callbacks = {}) {
    detail::Hooks hooks;
    hooks.callbacks = std::move(callbacks);
    auto table = hooks.table();
    sj_model *handle = nullptr;
    int32_t status = sj_train(device.get(), arch.c_str(), nullptr, samples.get(), validation ? validation->get() : nullptr,
                              options, &table, nullptr, 0, &handle);
    Model made(handle);
    hooks.rethrow();
    return detail::done(status, std::move(made));
}

/* Trains a model that exists on, to a new one. */
inline Result<Model> train(const Device &device, const Model &model, const Samples &samples, const Samples *validation = nullptr,
                           const sj_train_options *options = nullptr, Callbacks callbacks = {}) {
    detail::Hooks hooks;
    hooks.callbacks = std::move(callbacks);
    auto table = hooks.table();
    sj_model *handle = nullptr;
    int32_t status = sj_train(device.get(), nullptr, model.get(), samples.get(), validation ? validation->get() : nullptr,
                              options, &table, nullptr, 0, &handle);
    Model made(handle);
    hooks.rethrow();
    return detail::done(status, std::move(made));
}

/* Trains from files into a folder. */
inline Result<void> train(const Device &device, const sj_files &files, const std::string &folder,
                          const sj_train_options *options = nullptr, Callbacks callbacks = {}) {
    detail::Hooks hooks;
    hooks.callbacks = std::move(callbacks);
    auto table = hooks.table();
    int32_t status = sj_train_run(device.get(), &files, options, &table, folder.c_str(), nullptr, 0);
    hooks.rethrow();
    return detail::done(status);
}

class Outcome {
  public:
    explicit Outcome(sj_outcome *handle) : owner_(handle) {}
    Result<sj_outcome_info> info() const {
        auto info = detail::sized<sj_outcome_info>();
        int32_t status = sj_outcome_get_info(get(), &info);
        return detail::done(status, info);
    }
    Result<sj_receipt> receipt(uint64_t batch) const {
        auto receipt = detail::sized<sj_receipt>();
        int32_t status = sj_outcome_get_receipt(get(), batch, &receipt);
        return detail::done(status, receipt);
    }
    Result<std::string> note(uint64_t batch, uint64_t number) const {
        const char *text = "";
        int32_t status = sj_outcome_get_note(get(), batch, number, &text);
        return detail::done(status, std::string(status == SJ_OK ? text : ""));
    }
    /* JSON. */
    Result<std::string> report() const {
        const char *text = "";
        int32_t status = sj_outcome_get_report(get(), &text);
        return detail::done(status, std::string(status == SJ_OK ? text : ""));
    }
    /* HTML. */
    Result<std::string> page() const {
        const char *text = "";
        int32_t status = sj_outcome_get_page(get(), &text);
        return detail::done(status, std::string(status == SJ_OK ? text : ""));
    }
    Result<Model> model() const {
        sj_model *handle = nullptr;
        int32_t status = sj_outcome_get_model(get(), &handle);
        return detail::done(status, Model(handle));
    }
    sj_outcome *get() const noexcept { return owner_.get(); }

  private:
    detail::Owner<sj_outcome> owner_;
};

class Request {
  public:
    Request(std::shared_ptr<detail::Hooks> hooks, sj_request *handle) : hooks_(std::move(hooks)), owner_(handle) {}
    Result<sj_request_info> info() const {
        auto info = detail::sized<sj_request_info>();
        int32_t status = sj_request_get_info(get(), &info);
        return detail::done(status, info);
    }
    Result<sj_estimate> estimate() const {
        auto estimate = detail::sized<sj_estimate>();
        int32_t status = sj_request_estimate(get(), &estimate);
        return detail::done(status, estimate);
    }
    /* The plan as HTML. */
    Result<std::string> page() const {
        const char *text = "";
        int32_t status = sj_request_get_page(get(), &text);
        return detail::done(status, std::string(status == SJ_OK ? text : ""));
    }
    /* In memory. */
    Result<Outcome> scrub() const {
        sj_outcome *handle = nullptr;
        int32_t status = sj_request_scrub(get(), &handle);
        Outcome outcome(handle);
        hooks_->rethrow();
        return detail::done(status, std::move(outcome));
    }
    /* Into a folder. */
    Result<Outcome> run(const std::string &folder) const {
        sj_outcome *handle = nullptr;
        int32_t status = sj_request_run(get(), folder.c_str(), &handle);
        Outcome outcome(handle);
        hooks_->rethrow();
        return detail::done(status, std::move(outcome));
    }
    sj_request *get() const noexcept { return owner_.get(); }

  private:
    std::shared_ptr<detail::Hooks> hooks_; /* before the handle, so that it ends after it */
    detail::Owner<sj_request> owner_;
};

class Session {
  public:
    static Result<Session> open(const Device &device, const sj_files &files, Callbacks callbacks = {}) {
        Session session(std::move(callbacks));
        auto table = session.hooks_->table();
        sj_session *handle = nullptr;
        int32_t status = sj_session_open(device.get(), &files, &table, &handle);
        return session.opened(status, handle);
    }
    static Result<Session> of(const Device &device, const Model &model, const Samples &samples, const Samples *validation = nullptr,
                              Callbacks callbacks = {}, const sj_session_options *options = nullptr) {
        Session session(std::move(callbacks));
        auto table = session.hooks_->table();
        sj_session *handle = nullptr;
        int32_t status = sj_session_new(device.get(), model.get(), samples.get(), validation ? validation->get() : nullptr,
                                        options, &table, &handle);
        return session.opened(status, handle);
    }
    Result<sj_session_info> info() const {
        auto info = detail::sized<sj_session_info>();
        int32_t status = sj_session_get_info(get(), &info);
        return detail::done(status, info);
    }
    Result<Model> model() const {
        sj_model *handle = nullptr;
        int32_t status = sj_session_get_model(get(), &handle);
        return detail::done(status, Model(handle));
    }
    Result<void> cancel() const { return detail::done(sj_session_cancel(get())); }
    Result<void> uncancel() const { return detail::done(sj_session_uncancel(get())); }
    /* In words, as "class:3". */
    Result<Request> select(const std::string &samples, const sj_scrub_options *options = nullptr) const {
        sj_request *handle = nullptr;
        int32_t status = sj_request_select(get(), samples.c_str(), options, &handle);
        return made(status, handle);
    }
    Result<Request> select(Span<const uint64_t> samples, const sj_scrub_options *options = nullptr) const {
        sj_request *handle = nullptr;
        int32_t status = sj_request_indices(get(), samples.data(), samples.size(), options, &handle);
        return made(status, handle);
    }
    /* The set beside the data. */
    Result<Request> beside(const sj_scrub_options *options = nullptr) const {
        sj_request *handle = nullptr;
        int32_t status = sj_request_beside(get(), options, &handle);
        return made(status, handle);
    }
    sj_session *get() const noexcept { return owner_.get(); }

  private:
    explicit Session(Callbacks callbacks) : hooks_(std::make_shared<detail::Hooks>()) { hooks_->callbacks = std::move(callbacks); }
    Result<Session> opened(int32_t status, sj_session *handle) {
        owner_ = detail::Owner<sj_session>(handle);
        hooks_->rethrow();
        return detail::done(status, std::move(*this));
    }
    Result<Request> made(int32_t status, sj_request *handle) const {
        Request request(hooks_, handle);
        hooks_->rethrow();
        return detail::done(status, std::move(request));
    }
    std::shared_ptr<detail::Hooks> hooks_; /* before the handle, so that it ends after it */
    detail::Owner<sj_session> owner_;
};

/* A model before and after, compared with models that were retrained without the samples. */
class Verification {
  public:
    /* Of files: the model before and the data are those of `files`. */
    static Result<Verification> open(const Device &device, const sj_files &files, const std::string &after,
                                     const std::vector<std::string> &references, const std::string &test,
                                     const sj_verify_options &options, Callbacks callbacks = {}) {
        detail::Hooks hooks;
        hooks.callbacks = std::move(callbacks);
        auto table = hooks.table();
        std::vector<const char *> paths;
        for (const auto &path : references) paths.push_back(path.c_str());
        sj_verification *handle = nullptr;
        int32_t status = sj_verification_open(device.get(), &files, after.c_str(), paths.data(), paths.size(), test.c_str(),
                                              &options, &table, &handle);
        Verification made(handle);
        hooks.rethrow();
        return detail::done(status, std::move(made));
    }
    /* Of models and samples in memory. */
    static Result<Verification> of(const Device &device, const Model &before, const Model &after,
                                   const std::vector<const Model *> &references, const Samples &samples, const Samples &test,
                                   const sj_verify_options &options, Callbacks callbacks = {}) {
        detail::Hooks hooks;
        hooks.callbacks = std::move(callbacks);
        auto table = hooks.table();
        std::vector<const sj_model *> models;
        for (const auto *model : references) models.push_back(model->get());
        sj_verification *handle = nullptr;
        int32_t status = sj_verification_new(device.get(), before.get(), after.get(), models.data(), models.size(),
                                             samples.get(), test.get(), &options, &table, &handle);
        Verification made(handle);
        hooks.rethrow();
        return detail::done(status, std::move(made));
    }
    Result<sj_verification_info> info() const {
        auto info = detail::sized<sj_verification_info>();
        int32_t status = sj_verification_get_info(get(), &info);
        return detail::done(status, info);
    }
    /* Texts live as long as this. */
    Result<sj_measure> measure(uint64_t number) const {
        auto measure = detail::sized<sj_measure>();
        int32_t status = sj_verification_get_measure(get(), number, &measure);
        return detail::done(status, measure);
    }
    Result<sj_flag> flag(uint64_t number) const {
        auto flag = detail::sized<sj_flag>();
        int32_t status = sj_verification_get_flag(get(), number, &flag);
        return detail::done(status, flag);
    }
    Result<std::string> note(uint64_t number) const {
        const char *text = "";
        int32_t status = sj_verification_get_note(get(), number, &text);
        return detail::done(status, std::string(status == SJ_OK ? text : ""));
    }
    /* JSON. */
    Result<std::string> report() const {
        const char *text = "";
        int32_t status = sj_verification_get_report(get(), &text);
        return detail::done(status, std::string(status == SJ_OK ? text : ""));
    }
    /* HTML. */
    Result<std::string> page() const {
        const char *text = "";
        int32_t status = sj_verification_get_page(get(), &text);
        return detail::done(status, std::string(status == SJ_OK ? text : ""));
    }
    sj_verification *get() const noexcept { return owner_.get(); }

  private:
    explicit Verification(sj_verification *handle) : owner_(handle) {}
    detail::Owner<sj_verification> owner_;
};

/* T(Y, Z | X), or xi. */
inline Result<sj_codec_result> codec(const Device &device, const Tensor &y, const Tensor &data, Span<const uint64_t> z,
                                     Span<const uint64_t> x = {}, const sj_codec_options *options = nullptr) {
    auto result = detail::sized<sj_codec_result>();
    int32_t status = sj_codec(device.get(), y.get(), data.get(), z.data(), z.size(), x.data(), x.size(), options, &result);
    return detail::done(status, result);
}

/* Columns in order of choice, of data with this many columns. */
inline Result<std::vector<sj_foci_step>> foci(const Device &device, const Tensor &y, const Tensor &data, size_t columns,
                                              const sj_foci_options *options = nullptr) {
    std::vector<sj_foci_step> steps(columns);
    uint64_t found = 0;
    int32_t status = sj_foci(device.get(), y.get(), data.get(), options, steps.data(), steps.size(), &found, nullptr);
    steps.resize(static_cast<size_t>(found));
    return detail::done(status, std::move(steps));
}

/* Columns of numbers of a file. */
class Table {
  public:
    /* Named as "income,3,7-9"; an empty list is all. */
    static Result<Table> load(const std::string &path, const std::string &columns = "", const sj_table_options *options = nullptr) {
        sj_table *handle = nullptr;
        int32_t status = sj_table_load(path.c_str(), columns.empty() ? nullptr : columns.c_str(), options, &handle);
        return detail::done(status, Table(handle));
    }
    Result<sj_table_info> info() const {
        auto info = detail::sized<sj_table_info>();
        int32_t status = sj_table_get_info(get(), &info);
        return detail::done(status, info);
    }
    /* Its name lives as long as this. */
    Result<sj_table_column> column(uint64_t number) const {
        auto column = detail::sized<sj_table_column>();
        int32_t status = sj_table_get_column(get(), number, &column);
        return detail::done(status, column);
    }
    /* A view of the values, alive as long as this. */
    Result<sj_tensor> tensor() const {
        sj_tensor view{};
        int32_t status = sj_table_get_tensor(get(), &view);
        return detail::done(status, view);
    }
    sj_table *get() const noexcept { return owner_.get(); }

  private:
    explicit Table(sj_table *handle) : owner_(handle) {}
    detail::Owner<sj_table> owner_;
};

/* The Markov blankets of all columns. */
class Graph {
  public:
    static Result<Graph> of(const Device &device, const Tensor &data, const std::vector<std::string> &names = {},
                            const sj_foci_options *options = nullptr, Callbacks callbacks = {}) {
        detail::Hooks hooks;
        hooks.callbacks = std::move(callbacks);
        auto table = hooks.table();
        std::vector<const char *> list;
        for (const auto &name : names) list.push_back(name.c_str());
        const sj_tensor *columns = data.get();
        if (!list.empty() && (columns->ndim != 2 || list.size() != static_cast<uint64_t>(columns->shape[1]))) {
            Error error(SJ_ERR_ARGUMENT, "a name for every column was expected");
#if SCRUBJAY_NO_EXCEPTIONS
            return error;
#else
            throw error;
#endif
        }
        sj_graph *handle = nullptr;
        int32_t status = sj_foci_graph(device.get(), data.get(), list.empty() ? nullptr : list.data(), options, nullptr, &table, &handle);
        Graph made(handle);
        hooks.rethrow();
        return detail::done(status, std::move(made));
    }
    Result<sj_graph_info> info() const {
        auto info = detail::sized<sj_graph_info>();
        int32_t status = sj_graph_get_info(get(), &info);
        return detail::done(status, info);
    }
    Result<std::string> json() const {
        const char *text = "";
        int32_t status = sj_graph_get_json(get(), &text);
        return detail::done(status, std::string(status == SJ_OK ? text : ""));
    }
    /* For Graphviz. */
    Result<std::string> dot() const {
        const char *text = "";
        int32_t status = sj_graph_get_dot(get(), &text);
        return detail::done(status, std::string(status == SJ_OK ? text : ""));
    }
    sj_graph *get() const noexcept { return owner_.get(); }

  private:
    explicit Graph(sj_graph *handle) : owner_(handle) {}
    detail::Owner<sj_graph> owner_;
};

/* The devices of the machine, as JSON. */
inline Result<std::string> devices() {
    size_t needed = 0;
    std::string text;
    int32_t status = sj_devices(nullptr, 0, &needed);
    if (status == SJ_OK) {
        text.resize(needed + 256); /* what is measured may be longer the next time */
        status = sj_devices(&text[0], text.size(), &needed);
        text.resize(status == SJ_OK ? needed - 1 : 0);
    }
    return detail::done(status, std::move(text));
}

} /* namespace sj */

#endif
