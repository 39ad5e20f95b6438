// COLUMNS windows times ROWS filters. A row's weight bits go to all its columns, a column's activations to all its rows.
//
// A layer without windows shares no weight between columns: with `shared` low every column has weight bits of its own.
module tile #(
    parameter COLUMNS = 16,
    parameter ROWS = 16,
    parameter LANES = 16,
    parameter WIDTH = 16,
    parameter SUM = 32
) (
    input clk,
    input enable,
    input first_plane,
    input last_plane,
    input first_step,
    input shared,
    input with_sign,                                // of the activations
    input [COLUMNS*ROWS*LANES-1:0] weights,         // column by column; shared: the first column's are meant for all
    input [COLUMNS*LANES*WIDTH-1:0] activations,    // column by column
    output [COLUMNS*ROWS*SUM-1:0] sums              // column by column
);
    genvar column, row;
    generate
        for (column = 0; column < COLUMNS; column = column + 1) begin : windows
            for (row = 0; row < ROWS; row = row + 1) begin : filters
                wire [LANES-1:0] bits = shared ? weights[row*LANES+:LANES] : weights[(column*ROWS+row)*LANES+:LANES];
                pe #(.LANES(LANES), .WIDTH(WIDTH), .SUM(SUM)) element (
                    .clk(clk),
                    .enable(enable),
                    .first_plane(first_plane),
                    .last_plane(last_plane),
                    .first_step(first_step),
                    .weights(bits),
                    .with_sign(with_sign),
                    .activations(activations[column*LANES*WIDTH+:LANES*WIDTH]),
                    .sum(sums[(column*ROWS+row)*SUM+:SUM])
                );
            end
        end
    endgenerate
endmodule
