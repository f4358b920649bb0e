// The function of the comparison, for emulators that run handlers as Lambda does.
exports.handler = async (event) => ({ statusCode: 200, body: "hello " + event.name });
