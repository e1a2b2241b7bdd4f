// The rendezvous store: a c10d::Store whose every operation is answered by Rust.
#pragma once

#include <torch/csrc/distributed/c10d/Store.hpp>

#include <memory>
#include <mutex>
#include <string>
#include <vector>

extern "C" {
// Mirrored by `Bytes` in src/sys.rs.
struct nrs_bytes {
  const uint8_t* data;
  size_t size;
};

// Mirrored by `StoreCallbacks` in src/sys.rs. `out` and `error` are std::string.
struct nrs_store_callbacks {
  int32_t (*set)(void*, nrs_bytes, nrs_bytes, void* error);
  int32_t (*get)(void*, nrs_bytes, int64_t timeout_ms, void* out, void* error);
  int32_t (*add)(void*, nrs_bytes, int64_t, int64_t* out, void* error);
  int32_t (*check)(void*, const nrs_bytes*, size_t, int32_t* out, void* error);
  int32_t (*wait)(void*, const nrs_bytes*, size_t, int64_t timeout_ms, void* error);
  int32_t (*compare_set)(void*, nrs_bytes, nrs_bytes, nrs_bytes, void* out, void* error);
  int32_t (*delete_key)(void*, nrs_bytes, int32_t* out, void* error);
  int32_t (*num_keys)(void*, int64_t* out, void* error);
  void* (*clone)(void*);
  void (*drop)(void*);
};
}

namespace nrs {

// The values that went through a store while a group was formed: Gloo's listening addresses are
// among them, by which the group's sockets are told from everybody else's.
class Exchanged {
 public:
  void add(const std::vector<uint8_t>& value) {
    std::lock_guard<std::mutex> lock(mutex_);
    values_.emplace_back(value.begin(), value.end());
  }
  std::vector<std::string> take() {
    std::lock_guard<std::mutex> lock(mutex_);
    return std::move(values_);
  }

 private:
  std::mutex mutex_;
  std::vector<std::string> values_;
};

class RustStore final : public c10d::Store {
 public:
  // Takes over one reference to `state`. `exchanged` may be null: nothing is recorded then.
  RustStore(
      const nrs_store_callbacks* callbacks,
      void* state,
      std::chrono::milliseconds timeout,
      std::shared_ptr<Exchanged> exchanged)
      : c10d::Store(timeout),
        callbacks_(callbacks),
        state_(state),
        exchanged_(std::move(exchanged)) {}

  RustStore(const RustStore&) = delete;
  RustStore& operator=(const RustStore&) = delete;

  ~RustStore() override {
    callbacks_->drop(state_);
  }

  c10::intrusive_ptr<c10d::Store> clone() override {
    return c10::make_intrusive<RustStore>(
        callbacks_, callbacks_->clone(state_), timeout_, exchanged_);
  }

  using c10d::Store::compareSet;
  using c10d::Store::set;

  void set(const std::string& key, const std::vector<uint8_t>& value) override {
    record(value);
    std::string error;
    check_answer(callbacks_->set(state_, lend(key), lend(value), &error), error);
  }

  std::vector<uint8_t> get(const std::string& key) override {
    std::string out;
    std::string error;
    check_answer(callbacks_->get(state_, lend(key), timeout_.count(), &out, &error), error);
    std::vector<uint8_t> value(out.begin(), out.end());
    record(value);
    return value;
  }

  std::vector<uint8_t> compareSet(
      const std::string& key,
      const std::vector<uint8_t>& expected,
      const std::vector<uint8_t>& desired) override {
    std::string out;
    std::string error;
    check_answer(
        callbacks_->compare_set(state_, lend(key), lend(expected), lend(desired), &out, &error),
        error);
    return {out.begin(), out.end()};
  }

  int64_t add(const std::string& key, int64_t value) override {
    int64_t out = 0;
    std::string error;
    check_answer(callbacks_->add(state_, lend(key), value, &out, &error), error);
    return out;
  }

  bool deleteKey(const std::string& key) override {
    int32_t out = 0;
    std::string error;
    check_answer(callbacks_->delete_key(state_, lend(key), &out, &error), error);
    return out != 0;
  }

  bool check(const std::vector<std::string>& keys) override {
    int32_t out = 0;
    std::string error;
    auto lent = lend(keys);
    check_answer(callbacks_->check(state_, lent.data(), lent.size(), &out, &error), error);
    return out != 0;
  }

  int64_t getNumKeys() override {
    int64_t out = 0;
    std::string error;
    check_answer(callbacks_->num_keys(state_, &out, &error), error);
    return out;
  }

  void wait(const std::vector<std::string>& keys) override {
    wait(keys, timeout_);
  }

  void wait(
      const std::vector<std::string>& keys,
      const std::chrono::milliseconds& timeout) override {
    std::string error;
    auto lent = lend(keys);
    check_answer(
        callbacks_->wait(state_, lent.data(), lent.size(), timeout.count(), &error), error);
  }

 private:
  template <typename Container>
  static nrs_bytes lend(const Container& bytes) {
    return {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()};
  }

  static std::vector<nrs_bytes> lend(const std::vector<std::string>& keys) {
    std::vector<nrs_bytes> lent;
    lent.reserve(keys.size());
    for (const auto& key : keys) {
      lent.push_back({reinterpret_cast<const uint8_t*>(key.data()), key.size()});
    }
    return lent;
  }

  static void check_answer(int32_t answer, const std::string& error) {
    if (answer != 0) {
      C10_THROW_ERROR(DistStoreError, error);
    }
  }

  void record(const std::vector<uint8_t>& value) {
    if (exchanged_) {
      exchanged_->add(value);
    }
  }

  const nrs_store_callbacks* callbacks_;
  void* state_;
  std::shared_ptr<Exchanged> exchanged_;
};

}  // namespace nrs
