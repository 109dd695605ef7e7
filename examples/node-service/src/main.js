const isNumber = require("is-number");

console.log(`Hello from Node: 42 is ${isNumber("42") ? "" : "not "}a number, and this runs as user ${process.getuid()}.`);
