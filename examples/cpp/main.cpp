/*
forget-server: serves predictions of a model in memory, and makes it forget samples on request, without a stop.

    forget-server MODEL_FOLDER TRAIN VALIDATION

It reads one command a line from standard input and answers with one line each, as a server would from a socket:

    predict 0.5 -1.2 ..   ->  class 2 version 0
    forget 3 17 42 ..     ->  forgotten 12 loss 0.01 -> 2.9 version 1    or    kept: REASON
    save FOLDER           ->  saved FOLDER
    quit

While a request runs, a second thread predicts all the time, as clients would; at the end it reports that it never waited for a
model that was half changed.
*/
#include <atomic>
#include <fstream>
#include <iostream>
#include <iterator>
#include <sstream>
#include <thread>

#include "store.hpp"

static std::vector<unsigned char> read(const std::string &path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error(path + ": cannot be read");
    return {std::istreambuf_iterator<char>(file), {}};
}

template <class T> static std::vector<T> numbers(std::istream &line) {
    std::vector<T> values{std::istream_iterator<T>(line), {}};
    if (!line.eof()) throw std::runtime_error("a number was expected");
    return values;
}

/* Answers one line; whether to go on. */
static bool answer(Store &store, const std::string &text, std::ostream &out) {
    std::istringstream line(text);
    std::string command;
    line >> command;
    if (command == "predict") {
        const auto features = numbers<float>(line);
        if (features.size() != store.features()) throw std::runtime_error(std::to_string(store.features()) + " features were expected");
        uint64_t version = 0;
        const size_t found = store.predict(features, version);
        out << "class " << found << " version " << version << std::endl;
    } else if (command == "forget") {
        const auto samples = numbers<uint64_t>(line);
        const Answer done = store.forget(samples);
        if (done.swapped) {
            out << "forgotten " << done.removed << " loss " << done.forget_loss_before << " -> " << done.forget_loss_after << std::endl;
        } else {
            out << "kept: " << done.reason << std::endl;
        }
    } else if (command == "save") {
        std::string folder;
        line >> folder;
        store.save(folder);
        out << "saved " << folder << std::endl;
    } else if (command == "quit") {
        return false;
    } else {
        throw std::runtime_error("predict, forget, save or quit was expected");
    }
    return true;
}

int main(int argc, char **argv) {
    if (argc != 4) {
        std::cerr << "usage: forget-server MODEL_FOLDER TRAIN VALIDATION" << std::endl;
        return 2;
    }
    try {
        const std::string folder = argv[1];
        const auto model = read(folder + "/model.safetensors"), config = read(folder + "/config.json");
        Store store(model, std::string(config.begin(), config.end()), sj::Samples::load(argv[2]), sj::Samples::load(argv[3]), 0);

        std::atomic<bool> ends{false};
        std::atomic<uint64_t> predictions{0};
        std::thread clients([&] {
            const std::vector<float> features(store.features(), 0.25f);
            for (uint64_t version = 0, last = 0; !ends.load(); ++predictions, last = version) {
                store.predict(features, version);
                if (version < last) std::abort(); /* a model that was replaced never comes back */
            }
        });
        std::string line;
        for (bool more = true; more && std::getline(std::cin, line);) {
            try {
                more = answer(store, line, std::cout);
            } catch (const std::exception &error) {
                std::cout << "error: " << error.what() << std::endl;
            }
        }
        ends = true;
        clients.join();
        std::cerr << predictions.load() << " predictions were made meanwhile" << std::endl;
        return 0;
    } catch (const std::exception &error) {
        std::cerr << "forget-server: " << error.what() << std::endl;
        return 1;
    }
}
