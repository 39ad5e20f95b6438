// The array: TILES tiles that one stream of activations feeds, and the sequencer that they share.
//
// Both buffers are outside: they deliver the words at the two addresses in the cycle in which they are asked for.
module machine #(
    parameter TILES = 1,
    parameter COLUMNS = 16,
    parameter ROWS = 16,
    parameter LANES = 16,
    parameter WIDTH = 16,
    parameter SUM = 32,
    parameter COUNT = 32
) (
    input clk,
    input reset,
    input start,
    input shared,
    input with_sign,
    input [COUNT-1:0] groups,
    input [COUNT-1:0] window_sets,
    input [COUNT-1:0] filter_steps,
    input [COUNT-1:0] steps,
    input [COUNT-1:0] planes,
    output busy,
    output [COUNT-1:0] weight_address,
    output [COUNT-1:0] activation_address,
    input [TILES*COLUMNS*ROWS*LANES-1:0] weights,   // tile by tile
    input [COLUMNS*LANES*WIDTH-1:0] activations,
    output finished,
    output [COUNT-1:0] finished_run,
    output [TILES*COLUMNS*ROWS*SUM-1:0] sums        // tile by tile
);
    wire first_plane, last_plane, first_step;

    sequencer #(.COUNT(COUNT)) loops (
        .clk(clk),
        .reset(reset),
        .start(start),
        .shared(shared),
        .groups(groups),
        .window_sets(window_sets),
        .filter_steps(filter_steps),
        .steps(steps),
        .planes(planes),
        .busy(busy),
        .weight_address(weight_address),
        .activation_address(activation_address),
        .first_plane(first_plane),
        .last_plane(last_plane),
        .first_step(first_step),
        .finished(finished),
        .finished_run(finished_run)
    );

    genvar number;
    generate
        for (number = 0; number < TILES; number = number + 1) begin : tiles
            tile #(.COLUMNS(COLUMNS), .ROWS(ROWS), .LANES(LANES), .WIDTH(WIDTH), .SUM(SUM)) one (
                .clk(clk),
                .enable(busy),
                .first_plane(first_plane),
                .last_plane(last_plane),
                .first_step(first_step),
                .shared(shared),
                .with_sign(with_sign),
                .weights(weights[number*COLUMNS*ROWS*LANES+:COLUMNS*ROWS*LANES]),
                .activations(activations),
                .sums(sums[number*COLUMNS*ROWS*SUM+:COLUMNS*ROWS*SUM])
            );
        end
    endgenerate
endmodule
