#include "store.hpp"

#include <algorithm>
#include <iterator>

Store::Store(const std::vector<unsigned char> &model, const std::string &config, sj::Samples train, sj::Samples validation,
             uint64_t threads)
    : device_(sj::Device::open("auto", threads)), train_(std::move(train)), validation_(std::move(validation)) {
    auto options = sj::model_options();
    const auto shape = train_.info();
    options.channels = shape.channels, options.height = shape.height, options.width = shape.width;
    sj::Model read = sj::Model::from_memory(model, config, &options);
    const auto info = read.info();
    features_ = static_cast<size_t>(info.channels * info.height * info.width);
    classes_ = static_cast<size_t>(info.classes);
    served_ = std::make_shared<const Served>(Served{std::move(read), 0});
}

size_t Store::predict(const std::vector<float> &features, uint64_t &version) const {
    const auto served = current();
    std::vector<float> logits(classes_);
    const sj::Tensor x(sj::Span<const float>(features), {1, static_cast<int64_t>(features_)});
    const sj::Tensor out(sj::Span<float>(logits), {1, static_cast<int64_t>(classes_)});
    served->model.forward(device_, x, out);
    version = served->version;
    return static_cast<size_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

Answer Store::forget(const std::vector<uint64_t> &samples) {
    std::lock_guard<std::mutex> one(one_request_);
    const auto served = current();
    auto session = std::make_shared<sj::Session>(sj::Session::of(device_, served->model, train_, &validation_));
    {
        std::lock_guard<std::mutex> lock(session_lock_);
        running_ = session;
    }
    Answer answer;
    try {
        /* Of all that was forgotten before, nothing is among the retained samples that are used. */
        std::vector<uint64_t> retained, gone(forgotten_);
        gone.insert(gone.end(), samples.begin(), samples.end());
        std::sort(gone.begin(), gone.end());
        for (uint64_t i = 0; i < train_.info().count; ++i) {
            if (!std::binary_search(gone.begin(), gone.end(), i)) retained.push_back(i);
        }
        auto options = sj::scrub_options();
        options.retain_indices = retained.data();
        options.retain_count = retained.size();
        sj::Request request = session->select(samples, &options);
        sj::Outcome outcome = request.scrub();
        const auto info = outcome.info();
        answer.removed = info.removed;
        for (uint64_t batch = 0; batch < info.batches; ++batch) {
            const auto receipt = outcome.receipt(batch);
            answer.forget_loss_before = receipt.forget_loss_before;
            answer.forget_loss_after = receipt.forget_loss_after;
            if (receipt.removed == 0) answer.reason = outcome.note(batch, receipt.notes - 1);
        }
        /* The gate: a batch that would cost too much accuracy is not removed, and half a removal is none. */
        if (info.not_removed == 0) {
            std::atomic_store(&served_, std::make_shared<const Served>(Served{outcome.model(), served->version + 1}));
            forgotten_ = std::move(gone);
            answer.swapped = true;
        }
    } catch (const sj::Error &error) {
        answer.reason = error.what();
    }
    std::lock_guard<std::mutex> lock(session_lock_);
    running_.reset();
    return answer;
}

void Store::cancel() {
    std::lock_guard<std::mutex> lock(session_lock_);
    if (running_) running_->cancel();
}

void Store::save(const std::string &folder) const { current()->model.save(folder); }
