// Reads {"machines": […], "expressions": […]} and answers {"errors": […], "values": […]}: what asl-validator finds
// wrong with each state machine, and what JSONata's reference implementation makes of each expression.
import { readFileSync } from "node:fs";
import aslValidator from "asl-validator";
import jsonata from "jsonata";

const validate = aslValidator.default ?? aslValidator;
const { machines, expressions } = JSON.parse(readFileSync(0, "utf8"));
const errors = machines.map((machine) => validate(machine).errors.map((error) => JSON.stringify(error)));
const values = [];
for (const expression of expressions) {
  try {
    values.push({ value: (await jsonata(expression).evaluate(null)) ?? null });
  } catch (error) {
    values.push({ error: error.code });
  }
}
process.stdout.write(JSON.stringify({ errors, values }));
