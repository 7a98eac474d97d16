#include "ort_op.h"

namespace hwfault::ort {

namespace {
// slot 2 of the table
const char* message(const Api& api, Status status) { return Slot<const char*(const OrtStatus*), 2>{api.api}(status); }
}  // namespace

void check(const Api& api, Status status) {
  if (!status) return;
  const std::string text = message(api, status);
  api.ReleaseStatus(status);
  throw Error(text);
}

bool NodeInfo::found(Status status) const {
  if (status) api_.ReleaseStatus(status);
  return !status;
}

std::string NodeInfo::name() const {
  size_t size = 0;
  if (!found(api_.KernelInfo_GetNodeName(info_, nullptr, &size)) && size == 0) return "";
  std::string name(size, '\0');
  if (!found(api_.KernelInfo_GetNodeName(info_, name.data(), &size))) return "";
  return name.c_str();  // without the terminating zero
}

int64_t NodeInfo::integer(const char* attribute, int64_t otherwise) const {
  int64_t value = 0;
  return found(api_.KernelInfoGetAttribute_int64(info_, attribute, &value)) ? value : otherwise;
}

int64_t NodeInfo::integer(const char* attribute) const {
  int64_t value = 0;
  if (!found(api_.KernelInfoGetAttribute_int64(info_, attribute, &value)))
    throw Error(std::string("the attribute ") + attribute + " is missing or no integer");
  return value;
}

std::string NodeInfo::text(const char* attribute, const char* otherwise) const {
  size_t size = 0;
  if (!found(api_.KernelInfoGetAttribute_string(info_, attribute, nullptr, &size)) && size == 0) return otherwise;
  std::string value(size, '\0');
  if (!found(api_.KernelInfoGetAttribute_string(info_, attribute, value.data(), &size))) return otherwise;
  return value.c_str();
}

std::vector<int64_t> NodeInfo::integers(const char* attribute) const {
  size_t size = 0;
  const bool known = found(api_.KernelInfoGetAttributeArray_int64(info_, attribute, nullptr, &size));
  std::vector<int64_t> values(size);
  if (size && found(api_.KernelInfoGetAttributeArray_int64(info_, attribute, values.data(), &size))) return values;
  if (!known) throw Error(std::string("the attribute ") + attribute + " is missing or no list of integers");
  return {};
}

int64_t element_count(const Shape& shape) {
  int64_t count = 1;
  for (const int64_t length : shape) count *= length;
  return count;
}

std::string text_of(const Shape& shape) {
  std::string text = "(";
  for (const int64_t length : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(length);
  return text + ")";
}

std::pair<void*, Shape> Context::raw_input(size_t index) const {
  const OrtValue* value = nullptr;
  check(api_, api_.KernelContext_GetInput(context_, index, &value));
  if (!value) throw Error("input " + std::to_string(index) + " is missing");
  Info* info = nullptr;
  check(api_, api_.GetTensorTypeAndShape(value, &info));
  size_t rank = 0;
  Shape shape;
  Status status = api_.GetDimensionsCount(info, &rank);
  if (!status) {
    shape.resize(rank);
    status = api_.GetDimensions(info, shape.data(), rank);
  }
  api_.ReleaseTensorTypeAndShapeInfo(info);
  check(api_, status);
  void* data = nullptr;
  check(api_, api_.GetTensorMutableData(const_cast<OrtValue*>(value), &data));
  return {data, std::move(shape)};
}

void* Context::raw_output(const Shape& shape) const {
  OrtValue* value = nullptr;
  check(api_, api_.KernelContext_GetOutput(context_, 0, shape.data(), shape.size(), &value));
  void* data = nullptr;
  check(api_, api_.GetTensorMutableData(value, &data));
  return data;
}

void Context::parallel_for(void (*function)(void*, size_t), size_t total, void* user) const {
  check(api_, api_.KernelContext_ParallelFor(context_, function, total, 0, user));
}

}  // namespace hwfault::ort
