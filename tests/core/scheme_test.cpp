#include "octavo/scheme.h"

#include <gtest/gtest.h>

namespace octavo {
namespace {

TEST(Scheme, ParsesWhatTheLanguageSays) {
  const auto expect = [](const char* text, Scheme scheme) {
    const auto parsed = parse_scheme(text);
    ASSERT_TRUE(parsed.ok()) << parsed.status().message();
    EXPECT_EQ(*parsed, scheme) << text;
    EXPECT_EQ(to_string(*parsed), text);
  };
  expect("w8a16", {{8, true, kPerChannel}, Activation::kFloat});
  expect("w8a16-tensor", {{8, true, kPerTensor}, Activation::kFloat});
  expect("w8a16-g128", {{8, true, 128}, Activation::kFloat});
  expect("w4a16-g64-asym", {{4, false, 64}, Activation::kFloat});
  expect("w4a16", {{4, true, kPerChannel}, Activation::kFloat});
  expect("w3a16-tensor-asym", {{3, false, kPerTensor}, Activation::kFloat});
  expect("w4a8-g128", {{4, true, 128}, Activation::kInt8PerToken});
  expect("w4a8-g32-asym", {{4, false, 32}, Activation::kInt8PerToken});
  expect("w8a8", {{8, true, kPerChannel}, Activation::kInt8PerToken});
  expect("w8a8-tensor-static", {{8, true, kPerTensor}, Activation::kInt8Static});
  expect("llm.int8", {{8, true, kPerChannel}, Activation::kInt8Outliers});
}

TEST(Scheme, ReordersOptionsIntoTheCanonicalSpelling) {
  EXPECT_EQ(to_string(*parse_scheme("w4a16-asym-g32")), "w4a16-g32-asym");
}

TEST(Scheme, EveryValidSchemeRoundTrips) {
  int valid = 0;
  for (int bits = 0; bits <= 9; ++bits) {
    for (const std::int64_t group : {-2, -1, 0, 1, 32, 128}) {
      for (const bool symmetric : {true, false}) {
        for (const auto activation :
             {Activation::kFloat, Activation::kInt8PerToken, Activation::kInt8Static, Activation::kInt8Outliers}) {
          const Scheme scheme = {{bits, symmetric, group}, activation};
          if (!validate(scheme).ok()) continue;
          ++valid;
          EXPECT_EQ(*parse_scheme(to_string(scheme)), scheme) << to_string(scheme);
        }
      }
    }
  }
  EXPECT_EQ(valid, 7 * 5 * 2 + 2 * 2 + 3 * 3 * 2 + 1);
}

TEST(Scheme, RefusesWithAReason) {
  const auto expect = [](const char* text, const char* reason) {
    const auto parsed = parse_scheme(text);
    ASSERT_FALSE(parsed.ok()) << text;
    EXPECT_NE(parsed.status().message().find(reason), std::string::npos) << parsed.status().message();
    EXPECT_NE(parsed.status().message().find("schemes look like"), std::string::npos);
  };
  expect("", "form w<bits>a<bits>");
  expect("int8", "form w<bits>a<bits>");
  expect("w8", "form w<bits>a<bits>");
  expect("w 8a16", "form w<bits>a<bits>");
  expect("w-8a16", "form w<bits>a<bits>");
  expect("w9a16", "2 to 8 bits, not 9");
  expect("w1a16", "2 to 8 bits, not 1");
  expect("w8a4", "8 or 16 bits, not 4");
  expect("w8a16-", "'' is not one of the options");
  expect("w8a16-g", "'g' is not one of the options");
  expect("w8a16-g0", "at least one element");
  expect("w8a16-g99999999999999999999", "is not one of the options");
  expect("w8a16-g32-tensor", "twice");
  expect("w4a16-asym-asym", "twice");
  expect("w8a16-static", "8-bit activations");
  expect("w8a8-static-static", "once");
  expect("w8a8-asym", "symmetric");
  expect("w8a8-g128", "w8a16-g128");
  expect("w4a8", "need a group size");
  expect("w6a8-g64", "8 bits, or 2 to 4");
  expect("w4a8-g64-static", "w8a8-static");
  expect("LLM.INT8", "form w<bits>a<bits>");
}

}  // namespace
}  // namespace octavo
