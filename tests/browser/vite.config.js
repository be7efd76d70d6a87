// SPDX-License-Identifier: Apache-2.0
import { defineConfig } from "vite";

export default defineConfig({
  base: "./",
  logLevel: "warn",
  // Top-level await; and one file, so that a failure shows where it is.
  build: { target: "es2022", minify: false, chunkSizeWarningLimit: 20_000, rollupOptions: { input: "page.html" } },
});
