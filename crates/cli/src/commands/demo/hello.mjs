// The Node function of `lacewing demo`.
export const handler = async (event, context) => {
  const name = event.name ?? "world";
  console.log(JSON.stringify({ greeting: name, memory: context.memoryLimitInMB }));
  return { message: `Hello, ${name}, from Node ${process.versions.node}` };
};
