//! Real functions in real sandboxes: every test starts a launcher of its own. Needs root; without
//! it each test says so and passes.

#[path = "lambda/bed.rs"]
mod bed;
#[path = "lambda/blanks.rs"]
mod blanks;
#[path = "lambda/custom.rs"]
mod custom;
#[path = "lambda/failures.rs"]
mod failures;
#[path = "lambda/life.rs"]
mod life;
#[path = "lambda/stock.rs"]
mod stock;
