// remote_ptr: an address in another process, which can be neither dereferenced nor mixed with a pointer of
// ours.
#pragma once

#include <cstddef>
#include <cstdint>

namespace kcare {

template <typename T = void> class remote_ptr {
public:
  constexpr remote_ptr() = default;
  constexpr explicit remote_ptr(std::uint64_t address) : address_(address) {}

  constexpr std::uint64_t as_int() const { return address_; }
  template <typename U> constexpr remote_ptr<U> cast() const { return remote_ptr<U>(address_); }
  /// The address `bytes` further; wraps around like the hardware.
  constexpr remote_ptr plus_bytes(std::uint64_t bytes) const { return remote_ptr(address_ + bytes); }
  constexpr remote_ptr minus_bytes(std::uint64_t bytes) const { return remote_ptr(address_ - bytes); }
  /// `alignment` is a power of two.
  constexpr remote_ptr aligned_down(std::uint64_t alignment) const {
    return remote_ptr(address_ & ~(alignment - 1));
  }

  friend constexpr bool operator==(remote_ptr a, remote_ptr b) { return a.address_ == b.address_; }
  friend constexpr bool operator!=(remote_ptr a, remote_ptr b) { return a.address_ != b.address_; }
  friend constexpr bool operator<(remote_ptr a, remote_ptr b) { return a.address_ < b.address_; }
  friend constexpr bool operator<=(remote_ptr a, remote_ptr b) { return a.address_ <= b.address_; }

private:
  std::uint64_t address_ = 0;
};

/// Half-open range of target addresses.
struct remote_range {
  remote_ptr<> start;
  remote_ptr<> end;

  constexpr bool contains(remote_ptr<> address) const { return start <= address && address < end; }
  constexpr std::uint64_t size() const { return end.as_int() - start.as_int(); }
};

/// Page size of x86-64.
constexpr std::uint64_t page_size = 4096;

} // namespace kcare
