// What c10d's reducer does with a bucket whose gradients are there: it begins to sum it over the ranks.
#pragma once

#include <torch/csrc/distributed/c10d/comm.hpp>

#include <algorithm>
#include <exception>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "group.hpp"
#include "shared_sum.hpp"

namespace nrs {

// Sums a bucket over the ranks. Without a hook the reducer would divide by the world size.
class SumHook final : public c10d::CommHookInterface {
 public:
  explicit SumHook(nrs_group& group) : group_(group) {}

  // From now on buckets are summed there. The hook only begins that: its future is complete at
  // once, the sums are there after `SharedSum::finish`.
  void use(SharedSum& shared) {
    shared_ = &shared;
  }

  c10::intrusive_ptr<c10::ivalue::Future> runHook(c10d::GradBucket& bucket) override {
    if (shared_ != nullptr) {
      shared_->ready(bucket.getIndex());
      auto begun = c10::make_intrusive<c10::ivalue::Future>(c10::TensorType::get());
      begun->markCompleted(bucket.getBuffer());
      return begun;
    }
    const at::Tensor buffer = bucket.getBufferRef();
    const bool compress = group_.compress && buffer.scalar_type() == at::kFloat;
    const at::Tensor sent = compress ? buffer.to(at::kBFloat16) : buffer;
    std::unique_ptr<nrs_work> work(all_reduce(group_, sent, 0));
    auto future = work->result ? work->result : work->work->getFuture();
    std::lock_guard<std::mutex> lock(mutex_);
    futures_.push_back(future);
    if (group_.device.is_cuda()) {
      pending_.push_back(std::move(work));
    }
    if (!compress) {
      return future;
    }
    // On CUDA a future's callbacks run on streams of their own, ordered behind the collective.
    return future->then(
        [buffer, sent](c10::ivalue::Future& sum) {
          if (sum.hasError()) {
            std::rethrow_exception(sum.exception_ptr());
          }
          at::NoGradGuard no_grad;
          buffer.copy_(sent);
          return c10::IValue(buffer);
        },
        c10::TensorType::get());
  }

  at::Tensor parseHookResult(const c10::IValue& result) override {
    return result.isTensor() ? result.toTensor() : result.toTensorVector().at(0);
  }

  // Forgets the collectives of an earlier backward pass.
  void begin() {
    std::lock_guard<std::mutex> lock(mutex_);
    futures_.clear();
    pending_.clear();
  }

  // Whether a collective of this backward pass failed. A future is complete, and whoever waits for
  // it awake, before its callbacks run: the group may not have been told yet.
  bool failed() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return std::any_of(futures_.begin(), futures_.end(), [](const auto& future) {
      return future->completed() && future->hasError();
    });
  }

  // On CUDA the reducer only orders streams; this waits until the host knows the sums are there.
  void wait_for_host() {
    std::vector<std::unique_ptr<nrs_work>> works;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      works.swap(pending_);
    }
    for (auto& work : works) {
      wait(*work);
    }
  }

 private:
  nrs_group& group_;
  SharedSum* shared_ = nullptr;
  mutable std::mutex mutex_;
  std::vector<c10::intrusive_ptr<c10::ivalue::Future>> futures_;
  std::vector<std::unique_ptr<nrs_work>> pending_;
};

}  // namespace nrs
