/*
The model that a server serves, and the hook that makes it forget.

Readers take the current model and keep it for the time of a prediction, while a new one is made beside it: a request is carried
out on the model as it is, judged by the gate, and put in its place whole. A request that fails, is cancelled or does not pass
leaves the model that is served as it was. Requests wait for each other; predictions wait for nothing.
*/
#ifndef STORE_HPP
#define STORE_HPP

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <scrubjay.hpp>

/* What became of a request. */
struct Answer {
    bool swapped = false;   /* whether the new model is served now */
    uint64_t removed = 0;   /* samples */
    std::string reason;     /* why not all are removed, or why the model was not swapped */
    double forget_loss_before = 0, forget_loss_after = 0;
};

class Store {
  public:
    /* A model of bytes in memory, as it may come from a database, the data it was trained on, and data it never saw. */
    Store(const std::vector<unsigned char> &model, const std::string &config, sj::Samples train, sj::Samples validation,
          uint64_t threads);

    /* The likeliest class of features, by the model that is served now; its version goes to `version`. */
    size_t predict(const std::vector<float> &features, uint64_t &version) const;

    /* Makes the model forget samples of the training data. */
    Answer forget(const std::vector<uint64_t> &samples);

    /* Ends the request that runs. May be called in any thread. */
    void cancel();

    /* Writes the model that is served, in the layout it came in. */
    void save(const std::string &folder) const;

    /* The length of an input. */
    size_t features() const { return features_; }

  private:
    /* A model and how often it was replaced. */
    struct Served {
        sj::Model model;
        uint64_t version;
    };

    std::shared_ptr<const Served> current() const { return std::atomic_load(&served_); }

    sj::Device device_;
    sj::Samples train_, validation_;
    size_t features_ = 0, classes_ = 0;
    std::shared_ptr<const Served> served_;
    std::vector<uint64_t> forgotten_; /* no request may use them as retained samples again */
    std::mutex one_request_;
    std::mutex session_lock_;
    std::shared_ptr<sj::Session> running_;
};

#endif
